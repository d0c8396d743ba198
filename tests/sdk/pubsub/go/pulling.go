package main

import (
	"fmt"
	"time"

	"cloud.google.com/go/pubsub/v2"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var pullingStories = []func(*world){
	aLeaseThatEndsGivesTheMessageToAnother,
	aLongerLeaseKeepsTheMessage,
	whatIsGivenBackComesAgain,
	anAckIdThatWasNeverGivenIsRefused,
	exactlyOnceRefusesAnAcknowledgementThatIsTooLate,
	filtersSelect,
	poisonGoesToTheDeadLetters,
	deadLetterPoliciesHaveBounds,
	aRetryPolicyHoldsBackWhatIsGivenBack,
	acknowledgedMessagesComeAgainFromATime,
	aSnapshotBringsBackWhatItSaw,
}

func aLeaseThatEndsGivesTheMessageToAnother(w *world) {
	topic, subscription := w.pair(&pb.Subscription{AckDeadlineSeconds: 10})
	must(w.publish(topic, text("x")))
	first, second := w.pull(subscription, 1), w.pull(subscription, 1)
	expect("the same", first[0].Message.MessageId, second[0].Message.MessageId)
	check(w.ack(subscription, second))
	w.nothing(subscription)
}

func aLongerLeaseKeepsTheMessage(w *world) {
	topic, subscription := w.pair(&pb.Subscription{AckDeadlineSeconds: 10})
	must(w.publish(topic, text("kept")))
	kept := w.pull(subscription, 1)
	check(w.lease(subscription, kept, 600))
	must(w.publish(topic, text("left")))
	w.pull(subscription, 1)
	// Had the first lease not been made longer, it would have ended before this one.
	expect("again", w.take(subscription, 1), []string{"left"})
	w.nothing(subscription)
	check(w.ack(subscription, kept))
}

func whatIsGivenBackComesAgain(w *world) {
	topic, subscription := w.pair(&pb.Subscription{})
	must(w.publish(topic, text("again")))
	check(w.lease(subscription, w.pull(subscription, 1), 0))
	expect("again", w.take(subscription, 1), []string{"again"})
	w.nothing(subscription)
}

func anAckIdThatWasNeverGivenIsRefused(w *world) {
	_, subscription := w.pair(&pb.Subscription{})
	never := []*pb.ReceivedMessage{{AckId: "never"}}
	fails(codes.InvalidArgument, "ack", w.ack(subscription, never))
	fails(codes.InvalidArgument, "lease", w.lease(subscription, never, 20))
}

func exactlyOnceRefusesAnAcknowledgementThatIsTooLate(w *world) {
	topic, subscription := w.pair(&pb.Subscription{EnableExactlyOnceDelivery: true})
	must(w.publish(topic, text("x")))
	stale := w.pull(subscription, 1)
	check(w.lease(subscription, stale, 0))
	fresh := w.pull(subscription, 1)
	fails(codes.InvalidArgument, "stale", w.ack(subscription, stale))
	check(w.ack(subscription, fresh))
	w.nothing(subscription)
}

func filtersSelect(w *world) {
	topic := w.topic()
	some := w.subscription(topic, &pb.Subscription{Filter: "attributes:a"})
	a := &pb.PubsubMessage{Data: []byte("a"), Attributes: map[string]string{"a": "1"}}
	b := &pb.PubsubMessage{Data: []byte("b"), Attributes: map[string]string{"b": "2"}}
	both := &pb.PubsubMessage{Data: []byte("both"), Attributes: map[string]string{"a": "1", "b": "2"}}
	must(w.publish(topic, a, b, both))
	expect("attributes:a", w.take(some, 2), []string{"a", "both"})
	w.nothing(some)
}

func poisonGoesToTheDeadLetters(w *world) {
	topic, dead := w.topic(), w.topic()
	policy := &pb.DeadLetterPolicy{DeadLetterTopic: dead, MaxDeliveryAttempts: 5}
	subscription := w.subscription(topic, &pb.Subscription{DeadLetterPolicy: policy})
	grave := w.subscription(dead, &pb.Subscription{})
	must(w.publish(topic, text("poison")))
	var attempts []int32
	for range 5 {
		got := w.pull(subscription, 1)
		attempts = append(attempts, got[0].DeliveryAttempt)
		check(w.lease(subscription, got, 0))
	}
	expect("attempts", attempts, []int32{1, 2, 3, 4, 5})
	w.nothing(subscription)
	buried := w.pull(grave, 1)[0].Message
	expect("data", string(buried.Data), "poison")
	expect("after", buried.Attributes["CloudPubSubDeadLetterSourceDeliveryCount"], "5")
}

func deadLetterPoliciesHaveBounds(w *world) {
	topic, dead := w.topic(), w.topic()
	for _, attempts := range []int32{4, 101} {
		policy := &pb.DeadLetterPolicy{DeadLetterTopic: dead, MaxDeliveryAttempts: attempts}
		what := fmt.Sprintf("%d attempts", attempts)
		fails(codes.InvalidArgument, what, failure(w.subscribe(topic, &pb.Subscription{DeadLetterPolicy: policy})))
	}
}

func aRetryPolicyHoldsBackWhatIsGivenBack(w *world) {
	long := durationpb.New(600 * time.Second)
	topic, subscription := w.pair(&pb.Subscription{RetryPolicy: &pb.RetryPolicy{MinimumBackoff: long, MaximumBackoff: long}})
	must(w.publish(topic, text("first")))
	check(w.lease(subscription, w.pull(subscription, 1), 0))
	must(w.publish(topic, text("second")))
	expect("next", w.take(subscription, 1), []string{"second"})
	w.nothing(subscription)
}

func (w *world) seek(request *pb.SeekRequest) {
	must(w.client.SubscriptionAdminClient.Seek(w, request))
}

func acknowledgedMessagesComeAgainFromATime(w *world) {
	topic, subscription := w.pair(&pb.Subscription{RetainAckedMessages: true})
	must(w.publish(topic, text("a"), text("b")))
	got := w.pull(subscription, 2)
	check(w.ack(subscription, got))
	w.nothing(subscription)
	before := timestamppb.New(got[0].Message.PublishTime.AsTime().Add(-time.Second))
	w.seek(&pb.SeekRequest{Subscription: subscription, Target: &pb.SeekRequest_Time{Time: before}})
	expect("again", w.take(subscription, 2), []string{"a", "b"})
}

func aSnapshotBringsBackWhatItSaw(w *world) {
	topic, subscription := w.pair(&pb.Subscription{})
	must(w.publish(topic, text("seen")))
	name := w.name("snapshots")
	asked := &pb.CreateSnapshotRequest{Name: name, Subscription: subscription}
	expect("topic", must(w.client.SubscriptionAdminClient.CreateSnapshot(w, asked)).Topic, topic)
	// Here the client's own subscriber takes them.
	check(w.receive(subscription, func(message *pubsub.Message) bool {
		message.Ack()
		return true
	}))
	w.nothing(subscription)
	w.seek(&pb.SeekRequest{Subscription: subscription, Target: &pb.SeekRequest_Snapshot{Snapshot: name}})
	expect("again", w.take(subscription, 1), []string{"seen"})
}
