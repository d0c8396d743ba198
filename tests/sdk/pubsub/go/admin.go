package main

import (
	"errors"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	pubsubapi "cloud.google.com/go/pubsub/v2/apiv1"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

var adminStories = []func(*world){
	topicsLiveAndDie,
	aTopicIsMadeOnce,
	aTopicThatIsNotThere,
	topicsComeInPages,
	topicLabelsAreUpdated,
	subscriptionsLiveAndDie,
	aSubscriptionThatIsNotThere,
	aSubscriptionOutlivesItsTopic,
	ackDeadlinesHaveBounds,
	onlyWhatTheMaskNamesChanges,
	anUpdateNeedsAMaskOfFieldsThatChange,
	aDetachedSubscriptionHasNoMessages,
	aSubscriptionTurnsToPushAndBack,
	avroHoldsBackWhatDoesNotFit,
	protobufHoldsBackWhatDoesNotFit,
	topicsHavePolicies,
}

// collect gives the names that a list ends with.
func collect[T interface{ GetName() string }](next func() (T, error)) (names []string) {
	for {
		one, err := next()
		if errors.Is(err, iterator.Done) {
			return names
		}
		check(err)
		names = append(names, one.GetName())
	}
}

// own gives the names that the story has made.
func (w *world) own(names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return !strings.Contains(name, w.mark) })
}

func topicsLiveAndDie(w *world) {
	topics, name := w.client.TopicAdminClient, w.name("topics")
	made := must(topics.CreateTopic(w, &pb.Topic{Name: name, Labels: map[string]string{"a": "b"}}))
	expect("made", made.Labels, map[string]string{"a": "b"})
	read := must(topics.GetTopic(w, &pb.GetTopicRequest{Topic: name}))
	expect("read", read.Name, name)
	list := func() []string {
		return w.own(collect(topics.ListTopics(w, &pb.ListTopicsRequest{Project: project}).Next))
	}
	expect("listed", list(), []string{name})
	check(topics.DeleteTopic(w, &pb.DeleteTopicRequest{Topic: name}))
	expect("after", len(list()), 0)
}

func aTopicIsMadeOnce(w *world) {
	topic := &pb.Topic{Name: w.topic()}
	fails(codes.AlreadyExists, "twice", failure(w.client.TopicAdminClient.CreateTopic(w, topic)))
}

func aTopicThatIsNotThere(w *world) {
	topics, name := w.client.TopicAdminClient, w.name("topics")
	fails(codes.NotFound, "get", failure(topics.GetTopic(w, &pb.GetTopicRequest{Topic: name})))
	fails(codes.NotFound, "delete", topics.DeleteTopic(w, &pb.DeleteTopicRequest{Topic: name}))
	fails(codes.NotFound, "publish", failure(w.publish(name, text("x"))))
	fails(codes.NotFound, "subscribe", failure(w.subscribe(name, &pb.Subscription{})))
}

func topicsComeInPages(w *world) {
	var made, listed []string
	for range 5 {
		made = append(made, w.topic())
	}
	all := w.client.TopicAdminClient.ListTopics(w, &pb.ListTopicsRequest{Project: project})
	pages := iterator.NewPager(all, 2, "")
	for {
		var page []*pb.Topic
		token := must(pages.NextPage(&page))
		expect("no more than asked", len(page) <= 2, true)
		for _, topic := range page {
			listed = append(listed, topic.Name)
		}
		if token == "" {
			break
		}
	}
	listed = w.own(listed)
	slices.Sort(listed)
	expect("each once", listed, made)
}

func mask(paths ...string) *fieldmaskpb.FieldMask {
	return &fieldmaskpb.FieldMask{Paths: paths}
}

func topicLabelsAreUpdated(w *world) {
	name, labels := w.topic(), map[string]string{"c": "d"}
	asked := &pb.UpdateTopicRequest{Topic: &pb.Topic{Name: name, Labels: labels}, UpdateMask: mask("labels")}
	expect("changed", must(w.client.TopicAdminClient.UpdateTopic(w, asked)).Labels, labels)
}

func (w *world) read(subscription string) *pb.Subscription {
	asked := &pb.GetSubscriptionRequest{Subscription: subscription}
	return must(w.client.SubscriptionAdminClient.GetSubscription(w, asked))
}

func subscriptionsLiveAndDie(w *world) {
	subscriptions := w.client.SubscriptionAdminClient
	topic, name := w.pair(&pb.Subscription{AckDeadlineSeconds: 20, EnableMessageOrdering: true})
	read := w.read(name)
	expect("deadline", read.AckDeadlineSeconds, int32(20))
	expect("order", read.EnableMessageOrdering, true)
	fails(codes.AlreadyExists, "twice", failure(subscriptions.CreateSubscription(w, &pb.Subscription{Name: name, Topic: topic})))
	list := func() []string {
		return w.own(collect(subscriptions.ListSubscriptions(w, &pb.ListSubscriptionsRequest{Project: project}).Next))
	}
	expect("listed", list(), []string{name})
	check(subscriptions.DeleteSubscription(w, &pb.DeleteSubscriptionRequest{Subscription: name}))
	expect("after", len(list()), 0)
}

func aSubscriptionThatIsNotThere(w *world) {
	subscriptions, name := w.client.SubscriptionAdminClient, w.name("subscriptions")
	nothing := []*pb.ReceivedMessage{{AckId: "x"}}
	fails(codes.NotFound, "get", failure(subscriptions.GetSubscription(w, &pb.GetSubscriptionRequest{Subscription: name})))
	fails(codes.NotFound, "delete", subscriptions.DeleteSubscription(w, &pb.DeleteSubscriptionRequest{Subscription: name}))
	fails(codes.NotFound, "pull", failure(subscriptions.Pull(w, &pb.PullRequest{Subscription: name, MaxMessages: 1})))
	fails(codes.NotFound, "ack", w.ack(name, nothing))
	fails(codes.NotFound, "lease", w.lease(name, nothing, 10))
	asked := &pb.UpdateSubscriptionRequest{
		Subscription: &pb.Subscription{Name: name, AckDeadlineSeconds: 20}, UpdateMask: mask("ack_deadline_seconds"),
	}
	fails(codes.NotFound, "update", failure(subscriptions.UpdateSubscription(w, asked)))
}

func aSubscriptionOutlivesItsTopic(w *world) {
	topic, name := w.pair(&pb.Subscription{})
	must(w.publish(topic, text("before")))
	check(w.client.TopicAdminClient.DeleteTopic(w, &pb.DeleteTopicRequest{Topic: topic}))
	expect("topic", w.read(name).Topic, "_deleted-topic_")
	expect("what was there", w.take(name, 1), []string{"before"})
	fails(codes.NotFound, "publish", failure(w.publish(topic, text("after"))))
}

func ackDeadlinesHaveBounds(w *world) {
	topic := w.topic()
	for _, seconds := range []int32{-1, 601} {
		fails(codes.InvalidArgument, "deadline", failure(w.subscribe(topic, &pb.Subscription{AckDeadlineSeconds: seconds})))
	}
	for _, seconds := range []int32{10, 600} {
		name := w.subscription(topic, &pb.Subscription{AckDeadlineSeconds: seconds})
		expect("deadline", w.read(name).AckDeadlineSeconds, seconds)
	}
}

func onlyWhatTheMaskNamesChanges(w *world) {
	_, name := w.pair(&pb.Subscription{AckDeadlineSeconds: 20, Labels: map[string]string{"a": "b"}})
	update := func(change *pb.Subscription, paths ...string) *pb.Subscription {
		change.Name = name
		asked := &pb.UpdateSubscriptionRequest{Subscription: change, UpdateMask: mask(paths...)}
		return must(w.client.SubscriptionAdminClient.UpdateSubscription(w, asked))
	}
	update(&pb.Subscription{AckDeadlineSeconds: 30, Labels: map[string]string{"x": "y"}}, "ack_deadline_seconds")
	policy := &pb.RetryPolicy{MinimumBackoff: durationpb.New(5 * time.Second), MaximumBackoff: durationpb.New(9 * time.Second)}
	update(&pb.Subscription{RetryPolicy: policy}, "retry_policy")
	read := w.read(name)
	expect("labels", read.Labels, map[string]string{"a": "b"})
	expect("deadline", read.AckDeadlineSeconds, int32(30))
	expect("backoff", read.RetryPolicy.MinimumBackoff.AsDuration(), 5*time.Second)
}

func anUpdateNeedsAMaskOfFieldsThatChange(w *world) {
	topic, name := w.pair(&pb.Subscription{})
	for _, paths := range [][]string{{}, {"colour"}, {"topic"}, {"enable_message_ordering"}} {
		change := &pb.Subscription{Name: name, Topic: topic, EnableMessageOrdering: true}
		asked := &pb.UpdateSubscriptionRequest{Subscription: change, UpdateMask: mask(paths...)}
		fails(codes.InvalidArgument, strings.Join(paths, ","), failure(w.client.SubscriptionAdminClient.UpdateSubscription(w, asked)))
	}
}

func aDetachedSubscriptionHasNoMessages(w *world) {
	topic, name := w.pair(&pb.Subscription{})
	must(w.publish(topic, text("x")))
	must(w.client.TopicAdminClient.DetachSubscription(w, &pb.DetachSubscriptionRequest{Subscription: name}))
	expect("detached", w.read(name).Detached, true)
	asked := &pb.PullRequest{Subscription: name, MaxMessages: 1}
	fails(codes.FailedPrecondition, "pull", failure(w.client.SubscriptionAdminClient.Pull(w, asked)))
}

func aSubscriptionTurnsToPushAndBack(w *world) {
	topic, name := w.pair(&pb.Subscription{})
	endpoint := newEndpoint()
	change := func(config *pb.PushConfig) {
		asked := &pb.ModifyPushConfigRequest{Subscription: name, PushConfig: config}
		check(w.client.SubscriptionAdminClient.ModifyPushConfig(w, asked))
	}
	change(&pb.PushConfig{PushEndpoint: endpoint.URL})
	expect("endpoint", w.read(name).PushConfig.GetPushEndpoint(), endpoint.URL)
	must(w.publish(topic, text("pushed")))
	expect("pushed", string(endpoint.next().Message.Data), "pushed")
	change(&pb.PushConfig{})
	expect("no endpoint", w.read(name).PushConfig.GetPushEndpoint(), "")
	must(w.publish(topic, text("pulled")))
	expect("pulled", w.take(name, 1), []string{"pulled"})
}

// hold says that topics of a schema take what fits it and nothing else.
func hold(w *world, schema *pb.Schema, encoding pb.Encoding, good, bad []byte) {
	schemas := must(pubsubapi.NewSchemaClient(w))
	defer schemas.Close()
	name := w.name("schemas")
	id := name[strings.LastIndex(name, "/")+1:]
	asked := &pb.CreateSchemaRequest{Parent: project, SchemaId: id, Schema: schema}
	made := must(schemas.CreateSchema(w, asked))
	settings := &pb.SchemaSettings{Schema: made.Name, Encoding: encoding}
	topic := must(w.client.TopicAdminClient.CreateTopic(w, &pb.Topic{Name: w.name("topics"), SchemaSettings: settings})).Name
	name = w.subscription(topic, &pb.Subscription{})
	must(w.publish(topic, &pb.PubsubMessage{Data: good}))
	fails(codes.InvalidArgument, "bad", failure(w.publish(topic, &pb.PubsubMessage{Data: bad})))
	message := w.pull(name, 1)[0].Message
	expect("revision", message.Attributes["googclient_schemarevisionid"], made.RevisionId)
	check(schemas.DeleteSchema(w, &pb.DeleteSchemaRequest{Name: made.Name}))
}

func avroHoldsBackWhatDoesNotFit(w *world) {
	definition := `{"type": "record", "name": "State", "fields": [{"name": "name", "type": "string"}]}`
	schema := &pb.Schema{Type: pb.Schema_AVRO, Definition: definition}
	hold(w, schema, pb.Encoding_JSON, []byte(`{"name": "Ohio"}`), []byte(`{"name": 1}`))
	hold(w, schema, pb.Encoding_BINARY, []byte("\x08Ohio"), []byte("\x08Oh"))
}

func protobufHoldsBackWhatDoesNotFit(w *world) {
	definition := `syntax = "proto3"; message State { string name = 1; int32 rank = 2; }`
	schema := &pb.Schema{Type: pb.Schema_PROTOCOL_BUFFER, Definition: definition}
	hold(w, schema, pb.Encoding_JSON, []byte(`{"name": "Ohio", "rank": 7}`), []byte(`{"rank": "many"}`))
	hold(w, schema, pb.Encoding_BINARY, []byte("\x0a\x04Ohio\x10\x07"), []byte("\x0a\x7f"))
}

func topicsHavePolicies(w *world) {
	topics, topic := w.client.TopicAdminClient, w.topic()
	binding := &iampb.Binding{Role: "roles/pubsub.publisher", Members: []string{"user:a@example.com"}}
	policy := &iampb.Policy{Bindings: []*iampb.Binding{binding}}
	must(topics.SetIamPolicy(w, &iampb.SetIamPolicyRequest{Resource: topic, Policy: policy}))
	kept := must(topics.GetIamPolicy(w, &iampb.GetIamPolicyRequest{Resource: topic})).Bindings
	expect("bindings", len(kept), 1)
	expect("members", kept[0].Members, binding.Members)
	permissions := []string{"pubsub.topics.publish"}
	tested := must(topics.TestIamPermissions(w, &iampb.TestIamPermissionsRequest{Resource: topic, Permissions: permissions}))
	expect("permissions", tested.Permissions, permissions)
}
