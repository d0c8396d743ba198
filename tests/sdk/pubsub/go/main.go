// Tells the stories of this folder to the Pub/Sub that PUBSUB_EMULATOR_HOST names, by the unmodified cloud.google.com/go/pubsub; of each,
// one line of JSON: {"story", "error"}.
//
//	PUBSUB_EMULATOR_HOST=127.0.0.1:8085 sdk-pubsub [BEGINNING OF A STORY'S NAME]...
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// They wait more than they work.
const atOnce = 12

// tell gives what is wrong in the end, if anything.
func tell(story func(*world)) (wrong *string) {
	defer func() {
		if failure := recover(); failure != nil {
			text := fmt.Sprint(failure)
			wrong = &text
		}
	}()
	w := newWorld()
	defer w.client.Close()
	story(w)
	return nil
}

// nameOf gives main.aTopicIsMadeOnce as a_topic_is_made_once.
func nameOf(story func(*world)) string {
	name := runtime.FuncForPC(reflect.ValueOf(story).Pointer()).Name()
	var snake strings.Builder
	for _, letter := range strings.TrimPrefix(name, "main.") {
		if letter >= 'A' && letter <= 'Z' {
			snake.WriteRune('_')
		}
		snake.WriteString(strings.ToLower(string(letter)))
	}
	return snake.String()
}

func main() {
	var all sync.WaitGroup
	var printing sync.Mutex
	free := make(chan struct{}, atOnce)
	for _, story := range slices.Concat(receivingStories, pullingStories, publishingStories, adminStories) {
		name := nameOf(story)
		asked := func(beginning string) bool { return strings.HasPrefix(name, beginning) }
		if len(os.Args) > 1 && !slices.ContainsFunc(os.Args[1:], asked) {
			continue
		}
		free <- struct{}{}
		all.Go(func() {
			wrong := tell(story)
			<-free
			printing.Lock()
			defer printing.Unlock()
			json.NewEncoder(os.Stdout).Encode(map[string]any{"story": name, "error": wrong})
		})
	}
	all.Wait()
}
