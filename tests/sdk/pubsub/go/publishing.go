package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cloud.google.com/go/pubsub/v2"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
)

var publishingStories = []func(*world){
	theClientSendsBatches,
	aMessageArrivesAsItWasSent,
	theLargestMessageIsTaken,
	aByteMoreIsRefused,
	anEmptyMessageIsRefused,
	aThousandMessagesAtOnceAreTaken,
	oneMessageMoreIsRefused,
	attributesOverTheirLimitsAreRefused,
	aKeyThatFailedIsPausedUntilResumed,
}

const most = 10_000_000

func theClientSendsBatches(w *world) {
	topic, subscription := w.pair(&pb.Subscription{})
	publisher := w.client.Publisher(topic)
	publisher.PublishSettings.CountThreshold = 50
	var results []*pubsub.PublishResult
	for n := range 500 {
		message := &pubsub.Message{Data: fmt.Appendf(nil, "m%d", n), Attributes: map[string]string{"n": fmt.Sprint(n)}}
		results = append(results, publisher.Publish(w, message))
	}
	publisher.Stop()
	sent := map[string]bool{}
	for _, result := range results {
		sent[must(result.Get(w))] = true
	}
	expect("ids", len(sent), 500)
	got := map[string]bool{}
	for len(got) < 500 {
		asked := &pb.PullRequest{Subscription: subscription, MaxMessages: 500}
		answer := must(w.client.SubscriptionAdminClient.Pull(w, asked))
		for _, message := range answer.ReceivedMessages {
			expect("attribute", "m"+message.Message.Attributes["n"], string(message.Message.Data))
			got[message.Message.MessageId] = true
		}
		check(w.ack(subscription, answer.ReceivedMessages))
	}
	expect("ids that came", got, sent)
}

func aMessageArrivesAsItWasSent(w *world) {
	topic, subscription := w.pair(&pb.Subscription{})
	attributes := map[string]string{"k": "v", "é": "ü"}
	sent := must(w.publish(topic, &pb.PubsubMessage{Data: []byte("\x00\xffdata"), Attributes: attributes, OrderingKey: "key"}))
	got := w.pull(subscription, 1)[0].Message
	expect("id", got.MessageId, sent[0])
	expect("data", string(got.Data), "\x00\xffdata")
	expect("attributes", got.Attributes, attributes)
	expect("key", got.OrderingKey, "key")
	expect("a time", got.PublishTime.IsValid(), true)
}

func theLargestMessageIsTaken(w *world) {
	topic, subscription := w.pair(&pb.Subscription{})
	data := bytes.Repeat([]byte("x"), most)
	must(w.publish(topic, &pb.PubsubMessage{Data: data}))
	// Unlike the others, this client takes it with an emulator too.
	check(w.receive(subscription, func(message *pubsub.Message) bool {
		message.Ack()
		expect("data", bytes.Equal(message.Data, data), true)
		return true
	}))
}

func aByteMoreIsRefused(w *world) {
	data := bytes.Repeat([]byte("x"), most+1)
	fails(codes.InvalidArgument, "10,000,001 bytes", failure(w.publish(w.topic(), &pb.PubsubMessage{Data: data})))
}

func anEmptyMessageIsRefused(w *world) {
	topic := w.topic()
	fails(codes.InvalidArgument, "empty", failure(w.publish(topic, &pb.PubsubMessage{})))
	fails(codes.InvalidArgument, "by the client", failure(w.client.Publisher(topic).Publish(w, &pubsub.Message{}).Get(w)))
}

func aThousandMessagesAtOnceAreTaken(w *world) {
	ids := must(w.publish(w.topic(), slices.Repeat([]*pb.PubsubMessage{text("x")}, 1000)...))
	expect("ids", len(ids), 1000)
}

func oneMessageMoreIsRefused(w *world) {
	fails(codes.InvalidArgument, "1001 messages", failure(w.publish(w.topic(), slices.Repeat([]*pb.PubsubMessage{text("x")}, 1001)...)))
}

func attributesOverTheirLimitsAreRefused(w *world) {
	topic, many := w.topic(), map[string]string{}
	for n := range 101 {
		many[fmt.Sprint("k", n)] = "v"
	}
	refused := func(what string, attributes map[string]string) {
		fails(codes.InvalidArgument, what, failure(w.publish(topic, &pb.PubsubMessage{Data: []byte("x"), Attributes: attributes})))
	}
	refused("101 attributes", many)
	refused("a key of 257 bytes", map[string]string{strings.Repeat("k", 257): "v"})
	refused("a value of 1025 bytes", map[string]string{"k": strings.Repeat("v", 1025)})
}

func aKeyThatFailedIsPausedUntilResumed(w *world) {
	topic := w.name("topics")
	publisher := w.client.Publisher(topic)
	publisher.EnableMessageOrdering = true
	publish := func(data, key string) error {
		return failure(publisher.Publish(w, &pubsub.Message{Data: []byte(data), OrderingKey: key}).Get(w))
	}
	fails(codes.NotFound, "no topic", publish("1", "k"))
	must(w.client.TopicAdminClient.CreateTopic(w, &pb.Topic{Name: topic}))
	subscription := w.subscription(topic, &pb.Subscription{EnableMessageOrdering: true})
	var paused pubsub.ErrPublishingPaused
	expect("paused", errors.As(publish("2", "k"), &paused), true)
	check(publish("other", "other"))
	publisher.ResumePublish("k")
	check(publish("3", "k"))
	expect("messages", w.take(subscription, 2), []string{"3", "other"})
}
