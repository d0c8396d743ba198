package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
)

var receivingStories = []func(*world){
	aStreamKeepsWhatItsUserHolds,
	aStreamGivesMessagesAndTakesAcknowledgements,
	whatAStreamGivesBackComesAgain,
	flowControlHoldsBack,
	aStreamOfNoSubscription,
	messagesOfAKeyComeInOrder,
	exactlyOnceAnswersAcknowledgements,
	exactlyOnceGivesBackWithAnAnswer,
}

func aStreamKeepsWhatItsUserHolds(w *world) {
	topic, subscription := w.pair(&pb.Subscription{AckDeadlineSeconds: 10})
	must(w.publish(topic, text("held")))
	var seen atomic.Int32
	check(w.receive(subscription, func(message *pubsub.Message) bool {
		seen.Add(1)
		// A lease of 10 s that nobody makes longer ends in the meantime, and tells when.
		clock, other := w.pair(&pb.Subscription{AckDeadlineSeconds: 10})
		must(w.publish(clock, text("x")))
		w.pull(other, 1)
		w.pull(other, 1)
		message.Ack()
		return true
	}))
	expect("seen", seen.Load(), int32(1))
	w.nothing(subscription)
}

func aStreamGivesMessagesAndTakesAcknowledgements(w *world) {
	topic, subscription := w.pair(&pb.Subscription{})
	var messages []*pb.PubsubMessage
	for n := range 300 {
		messages = append(messages, text(fmt.Sprint(n)))
	}
	must(w.publish(topic, messages...))
	var lock sync.Mutex
	seen := map[string]bool{}
	check(w.receive(subscription, func(message *pubsub.Message) bool {
		message.Ack()
		lock.Lock()
		defer lock.Unlock()
		seen[string(message.Data)] = true
		return len(seen) == 300
	}))
	w.nothing(subscription)
}

func whatAStreamGivesBackComesAgain(w *world) {
	topic, subscription := w.pair(&pb.Subscription{})
	must(w.publish(topic, text("x")))
	var times atomic.Int32
	check(w.receive(subscription, func(message *pubsub.Message) bool {
		if times.Add(1) < 3 {
			message.Nack()
			return false
		}
		message.Ack()
		return true
	}))
	w.nothing(subscription)
}

func flowControlHoldsBack(w *world) {
	topic, subscription := w.pair(&pb.Subscription{})
	for range 20 {
		must(w.publish(topic, text("x")))
	}
	ctx, cancel := context.WithTimeout(w, patience())
	defer cancel()
	var now, most, done atomic.Int32
	subscriber := w.client.Subscriber(subscription)
	subscriber.ReceiveSettings.MaxOutstandingMessages = 3
	check(subscriber.Receive(ctx, func(_ context.Context, message *pubsub.Message) {
		if at := now.Add(1); at > most.Load() {
			most.Store(at)
		}
		time.Sleep(20 * time.Millisecond)
		now.Add(-1)
		message.Ack()
		if done.Add(1) == 20 {
			cancel()
		}
	}))
	expect("all", done.Load(), int32(20))
	expect("three at a time", most.Load() <= 3, true)
}

func aStreamOfNoSubscription(w *world) {
	fails(codes.NotFound, "receive", w.receive(w.name("subscriptions"), func(*pubsub.Message) bool { return true }))
}

func messagesOfAKeyComeInOrder(w *world) {
	topic, subscription := w.pair(&pb.Subscription{EnableMessageOrdering: true})
	publisher := w.client.Publisher(topic)
	publisher.EnableMessageOrdering = true
	for n := range 200 {
		publisher.Publish(w, &pubsub.Message{Data: []byte(fmt.Sprint(n)), OrderingKey: fmt.Sprint("key-", n%4)})
	}
	publisher.Stop()
	var lock sync.Mutex
	seen, count := map[string][]int{}, 0
	check(w.receive(subscription, func(message *pubsub.Message) bool {
		lock.Lock()
		defer lock.Unlock()
		seen[message.OrderingKey] = append(seen[message.OrderingKey], must(strconv.Atoi(string(message.Data))))
		message.Ack()
		count++
		return count == 200
	}))
	for key := range 4 {
		var wanted []int
		for n := key; n < 200; n += 4 {
			wanted = append(wanted, n)
		}
		expect("order", seen[fmt.Sprint("key-", key)], wanted)
	}
}

func exactlyOnceAnswersAcknowledgements(w *world) {
	topic, subscription := w.pair(&pb.Subscription{EnableExactlyOnceDelivery: true})
	must(w.publish(topic, text("x")))
	answer := make(chan pubsub.AcknowledgeStatus, 1)
	check(w.receive(subscription, func(message *pubsub.Message) bool {
		answer <- must(message.AckWithResult().Get(w))
		return true
	}))
	expect("answer", <-answer, pubsub.AcknowledgeStatus(pubsub.AcknowledgeStatusSuccess))
	w.nothing(subscription)
}

func exactlyOnceGivesBackWithAnAnswer(w *world) {
	topic, subscription := w.pair(&pb.Subscription{EnableExactlyOnceDelivery: true})
	must(w.publish(topic, text("x")))
	var times atomic.Int32
	check(w.receive(subscription, func(message *pubsub.Message) bool {
		if times.Add(1) == 1 {
			must(message.NackWithResult().Get(w))
			return false
		}
		must(message.AckWithResult().Get(w))
		return true
	}))
	expect("times", times.Load(), int32(2))
}
