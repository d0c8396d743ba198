"""Where Google's emulator is known to do otherwise than Google's documentation says: of each story, why, and what the emulator does.

What it does is a pattern of how the story fails there. A story that is here and does not fail so is a failure too, for then the
emulator has changed and the line goes."""

UNIMPLEMENTED = "Unimplemented|MethodNotImplemented|UNIMPLEMENTED"

DEVIATIONS = {
    # What it has not.
    "topics_have_policies": ("it has no IAM", UNIMPLEMENTED),
    "subscriptions_have_policies": ("it has no IAM", UNIMPLEMENTED),
    "a_detached_subscription_has_no_messages": ("it has no DetachSubscription", UNIMPLEMENTED),
    "detaching_what_is_not_there": ("it has no DetachSubscription", UNIMPLEMENTED),
    "protobuf_holds_back_what_does_not_fit": ("it has no Protocol Buffers schemas", "Protocol buffer support not implemented"),
    "protobuf_messages_are_validated": ("it has no Protocol Buffers schemas", "Protocol buffer support not implemented"),
    "protobuf_definitions_are_validated": ("it has no Protocol Buffers schemas", "Protocol buffer support not implemented"),
    "filters_select": ("it takes filters and does not apply them", "attributes:a: got .*b"),
    "filters_that_mean_nothing_are_refused": ("it does not read filters", "colour = 1: accepted"),
    "filters_are_no_longer_than_256_bytes": ("it does not read filters", "257 bytes: accepted"),
    "a_retry_policy_holds_back_what_is_given_back": ("it keeps retry policies and does not apply them", "next: got .*first"),
    "topic_labels_are_updated": ("its update masks do not know labels", "labels is not a known Topic field"),
    "subscription_labels_are_updated": ("its update masks do not know labels", "labels is not a known Subscription field"),
    "snapshot_labels_are_kept_and_updated": ("its snapshots have no labels", "made: got {}"),
    "a_subscription_expires_in_31_days_by_default": ("its subscriptions do not expire", "expires after: got 0.0"),
    "expiration_is_a_day_or_more": ("its subscriptions do not expire", "less than a day: accepted"),
    "a_subscription_says_its_state": ("its subscriptions have no state", "got 'STATE_UNSPECIFIED'"),
    "a_snapshot_serves_another_subscription_of_its_topic": (
        "it keeps messages by subscription, from when that was made", "number of messages: got 0"
    ),
    # What it is more lenient about.
    "a_byte_more_is_refused": ("it does not count bytes", "accepted"),
    "messages_of_one_request_are_no_larger_together": ("it does not count bytes", "10.2 MB: accepted"),
    "labels_have_rules": ("it does not look at labels", "Upper.*: accepted"),
    "pages_are_asked_for_rightly": ("it begins anew instead", "page_size.*: accepted"),
    "attributes_over_their_limits_are_refused": ("it does not count attributes", "101 attributes: accepted"),
    "attribute_keys_are_not_empty_nor_googs": ("it does not look at attributes", "the key '': accepted"),
    "ordering_keys_have_a_limit": ("it does not measure ordering keys", "1025 bytes: accepted"),
    "an_ack_deadline_is_ten_seconds_or_more": ("it takes any deadline from 0 to 600 s", "9 s: accepted"),
    "a_lease_is_600_seconds_or_less": ("it lends for longer", "601 s: accepted"),
    "a_pull_asks_for_something": ("it refuses a pull of 0 messages, but not of -1", "-1 messages: accepted"),
    "a_push_subscription_is_not_pulled": ("it lets one pull beside the push", "pull: accepted"),
    "what_hangs_on_no_topic_is_not_listed": ("it finds nothing there", "subscriptions: accepted"),
    # What it does otherwise.
    "a_topic_that_keeps_messages_gives_them_to_a_later_subscription": (
        "a new subscription of such a topic gets the old messages without a seek", "messages: got .*early"
    ),
    "what_was_pulled_and_given_back_comes_again_in_order": (
        "what is given back comes again after what followed it", r"order: got \[1, 2, 3, 4, 0\]"
    ),
    "a_stream_holds_no_more_than_its_client_allows": ("it leaves flow control to the client", "held: got 10"),
    "dead_letter_policies_have_bounds": ("it has another error", "OutOfRange"),
    "what_is_given_back_comes_before_what_follows_it": (
        "it brings one message again, and not those of its key that follow", "only .* came"
    ),
}
