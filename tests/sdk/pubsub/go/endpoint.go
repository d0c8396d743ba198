package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"time"
)

// A pushed is the envelope that a push endpoint gets.
type pushed struct {
	Subscription string
	Message      struct {
		Data       []byte
		MessageId  string
		Attributes map[string]string
	}
}

// An endpoint is an HTTP server of loopback that takes pushes.
type endpoint struct {
	*httptest.Server
	got chan pushed
}

func newEndpoint() *endpoint {
	got := make(chan pushed, 100)
	take := func(answer http.ResponseWriter, request *http.Request) {
		var one pushed
		if json.NewDecoder(request.Body).Decode(&one) == nil {
			got <- one
		}
		answer.WriteHeader(http.StatusNoContent)
	}
	return &endpoint{httptest.NewServer(http.HandlerFunc(take)), got}
}

// next waits for a push.
func (e *endpoint) next() pushed {
	select {
	case one := <-e.got:
		return one
	case <-time.After(patience()):
		panic("a push did not come")
	}
}
