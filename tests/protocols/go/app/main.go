// An app to talk to: through the gateway, and directly to compare.
//
//	/ws       echoes WebSocket messages; text that is no UTF-8 ends with 1007
//	/headers  what came, as JSON
//	/echo     the body as it comes, while it comes
//	/early    413 before the body was read
//	/events   three server-sent events, each after the first when /go is asked for
//	/trailers two trailers after the body
//	/bytes?N  so many bytes
//	/who      which process this is; /echo says so, too, as X-Who
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

const most = 1 << 20

var (
	who  = fmt.Sprint(os.Getenv("K_REVISION"), " ", time.Now().UnixNano())
	next = make(chan struct{})
)

func main() {
	http.HandleFunc("/ws", chat)
	http.HandleFunc("/headers", headers)
	http.HandleFunc("/echo", echo)
	http.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "too much", http.StatusRequestEntityTooLarge)
	})
	http.HandleFunc("/events", events)
	http.HandleFunc("/trailers", trailers)
	http.HandleFunc("/bytes", bytes)
	http.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, who) })
	http.HandleFunc("/go", func(w http.ResponseWriter, r *http.Request) { next <- struct{}{} })
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
	server := &http.Server{Addr: ":" + os.Getenv("PORT"), Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	log.Fatal(server.ListenAndServe())
}

func chat(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{EnableCompression: true, Subprotocols: []string{"chat"}}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetReadLimit(most)
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil {
			return
		}
		if kind == websocket.TextMessage && !utf8.Valid(message) {
			why := websocket.FormatCloseMessage(websocket.CloseInvalidFramePayloadData, "")
			conn.WriteControl(websocket.CloseMessage, why, time.Now().Add(time.Second))
			return
		}
		if conn.WriteMessage(kind, message) != nil {
			return
		}
	}
}

func headers(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"host": r.Host, "method": r.Method, "uri": r.RequestURI, "headers": r.Header, "proto": r.Proto})
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Who", who)
	control := http.NewResponseController(w)
	// HTTP/1 servers of Go read the whole body first, unless told so.
	_ = control.EnableFullDuplex()
	part := make([]byte, 64*1024)
	for {
		n, err := r.Body.Read(part)
		if n > 0 {
			if _, err := w.Write(part[:n]); err != nil {
				return
			}
			_ = control.Flush()
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

func events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for n := range 3 {
		if n > 0 {
			<-next
		}
		fmt.Fprintf(w, "id: %d\ndata: event %d\n\n", n, n)
		_ = http.NewResponseController(w).Flush()
	}
}

func trailers(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Sum, X-End")
	fmt.Fprint(w, "body")
	w.Header().Set("X-Sum", "4")
	w.Header().Set("X-End", "yes")
}

func bytes(w http.ResponseWriter, r *http.Request) {
	count, _ := strconv.Atoi(r.URL.RawQuery)
	w.Header().Set("Content-Length", strconv.Itoa(count))
	_, _ = io.CopyN(w, zeros{}, int64(count))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
