package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const project = "projects/demo"

// Nothing that comes takes that long; what never comes, in a place that is known for it, is not waited for as long.
func patience() time.Duration {
	if seconds, err := strconv.Atoi(os.Getenv("PATIENCE")); err == nil {
		return time.Duration(seconds) * time.Second
	}
	return time.Minute
}

// A world is the client of one story, and names that nothing else has. What goes wrong ends the story.
type world struct {
	context.Context
	client *pubsub.Client
	mark   string
	count  atomic.Int32
}

var worlds atomic.Int32

func newWorld() *world {
	ctx := context.Background()
	client := must(pubsub.NewClient(ctx, "demo"))
	mark := fmt.Sprintf("go-%d-%d-%d", os.Getpid(), time.Now().Unix(), worlds.Add(1))
	return &world{Context: ctx, client: client, mark: mark}
}

// name gives one that nothing has.
func (w *world) name(collection string) string {
	return fmt.Sprintf("%s/%s/%s-%d", project, collection, w.mark, w.count.Add(1))
}

func (w *world) topic() string {
	return must(w.client.TopicAdminClient.CreateTopic(w, &pb.Topic{Name: w.name("topics")})).Name
}

// subscription makes one of a topic; of the settings, name and topic are left out.
func (w *world) subscription(topic string, settings *pb.Subscription) string {
	return must(w.subscribe(topic, settings)).Name
}

func (w *world) subscribe(topic string, settings *pb.Subscription) (*pb.Subscription, error) {
	settings.Name, settings.Topic = w.name("subscriptions"), topic
	return w.client.SubscriptionAdminClient.CreateSubscription(w, settings)
}

// pair makes a topic and a subscription of it.
func (w *world) pair(settings *pb.Subscription) (topic, subscription string) {
	topic = w.topic()
	return topic, w.subscription(topic, settings)
}

// publish sends one request, without the client's own checks and batches.
func (w *world) publish(topic string, messages ...*pb.PubsubMessage) ([]string, error) {
	asked := &pb.PublishRequest{Topic: topic, Messages: messages}
	answer, err := w.client.TopicAdminClient.Publish(w, asked)
	return answer.GetMessageIds(), err
}

func text(data string) *pb.PubsubMessage {
	return &pb.PubsubMessage{Data: []byte(data)}
}

// pull waits for that many messages.
func (w *world) pull(subscription string, count int) []*pb.ReceivedMessage {
	var got []*pb.ReceivedMessage
	for deadline := time.Now().Add(patience()); len(got) < count && time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(w, 5*time.Second)
		asked := &pb.PullRequest{Subscription: subscription, MaxMessages: int32(count - len(got))}
		answer, err := w.client.SubscriptionAdminClient.Pull(ctx, asked)
		cancel()
		if err != nil && status.Code(err) != codes.DeadlineExceeded {
			panic(err)
		}
		got = append(got, answer.GetReceivedMessages()...)
	}
	expect("number of messages", len(got), count)
	return got
}

// take pulls and acknowledges; it gives the messages' data in order.
func (w *world) take(subscription string, count int) []string {
	got := w.pull(subscription, count)
	check(w.ack(subscription, got))
	var data []string
	for _, message := range got {
		data = append(data, string(message.Message.Data))
	}
	slices.Sort(data)
	return data
}

// nothing says that there is no message now.
func (w *world) nothing(subscription string) {
	asked := &pb.PullRequest{Subscription: subscription, MaxMessages: 10, ReturnImmediately: true}
	answer := must(w.client.SubscriptionAdminClient.Pull(w, asked))
	expect("messages", len(answer.ReceivedMessages), 0)
}

func (w *world) ack(subscription string, got []*pb.ReceivedMessage) error {
	asked := &pb.AcknowledgeRequest{Subscription: subscription, AckIds: ids(got)}
	return w.client.SubscriptionAdminClient.Acknowledge(w, asked)
}

func (w *world) lease(subscription string, got []*pb.ReceivedMessage, seconds int32) error {
	asked := &pb.ModifyAckDeadlineRequest{Subscription: subscription, AckIds: ids(got), AckDeadlineSeconds: seconds}
	return w.client.SubscriptionAdminClient.ModifyAckDeadline(w, asked)
}

func ids(got []*pb.ReceivedMessage) (ids []string) {
	for _, message := range got {
		ids = append(ids, message.AckId)
	}
	return ids
}

// receive gives a subscription's messages to `each` until that says that it has seen enough.
func (w *world) receive(subscription string, each func(*pubsub.Message) (enough bool)) error {
	ctx, cancel := context.WithTimeout(w, patience())
	defer cancel()
	var enough atomic.Bool
	wrong := make(chan any, 1)
	err := w.client.Subscriber(subscription).Receive(ctx, func(_ context.Context, message *pubsub.Message) {
		// It runs beside the story, which must hear of what goes wrong here.
		defer func() {
			if failure := recover(); failure != nil {
				select {
				case wrong <- failure:
				default:
				}
				cancel()
			}
		}()
		if each(message) {
			enough.Store(true)
			cancel()
		}
	})
	select {
	case failure := <-wrong:
		panic(failure)
	default:
	}
	if err == nil && !enough.Load() {
		return errors.New("too few messages came")
	}
	return err
}

// === What must be so.

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func expect(what string, got, wanted any) {
	if !reflect.DeepEqual(got, wanted) {
		panic(fmt.Sprintf("%s: got %v, wanted %v", what, got, wanted))
	}
}

// fails says that a call has ended in an error of that code.
func fails(code codes.Code, what string, err error) {
	if err == nil {
		panic(fmt.Sprintf("%s: accepted, wanted %s", what, code))
	}
	if status.Code(err) != code {
		panic(fmt.Sprintf("%s: %s (%v), wanted %s", what, status.Code(err), err, code))
	}
}

// failure leaves a call's answer out.
func failure[T any](_ T, err error) error { return err }
