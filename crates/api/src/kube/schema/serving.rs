//! Knative Serving's objects (Knative Serving API specification, v1), as far as Lauf has them. What
//! Lauf refuses is here too, so that the answer can say so rather than call it unknown.

use super::{
    MergeKey, Schema, int32, int64, keyed, list, map, meta, number_or_text, object, refused, text,
    time, top, truth,
};

/// One container needs no name, and then has an empty one.
const BY_NAME: &[MergeKey] = &[MergeKey {
    field: "name",
    default: Some(""),
}];
const BY_PORT: &[MergeKey] = &[
    MergeKey {
        field: "containerPort",
        default: None,
    },
    MergeKey {
        field: "protocol",
        default: Some("TCP"),
    },
];

/// A service.
pub(crate) fn service() -> Schema {
    top(
        "A service has a URL, makes a revision of every change of its template, and sends requests \
         to its revisions as its traffic says. Its instances run while there are requests.",
        object(
            "What is wanted of the service.",
            vec![("template", template()), ("traffic", traffic())],
        ),
        object(
            "What was made of it. Written by Lauf alone.",
            status(vec![
                ("address", address()),
                (
                    "latestCreatedRevisionName",
                    text("The newest revision that was made."),
                ),
                (
                    "latestReadyRevisionName",
                    text("The newest revision that became ready."),
                ),
                ("traffic", traffic()),
                ("url", text("Where the service is reached.")),
            ]),
        ),
    )
}

/// A configuration.
pub(crate) fn configuration() -> Schema {
    top(
        "The template of a service and the revisions made of it. Change the service instead.",
        object("What is wanted.", vec![("template", template())]),
        object(
            "What was made of it. Written by Lauf alone.",
            status(vec![
                (
                    "latestCreatedRevisionName",
                    text("The newest revision that was made."),
                ),
                (
                    "latestReadyRevisionName",
                    text("The newest revision that became ready."),
                ),
            ]),
        ),
    )
}

/// A route.
pub(crate) fn route() -> Schema {
    top(
        "Where a service's requests go. Change the service instead.",
        object("What is wanted.", vec![("traffic", traffic())]),
        object(
            "What is served. Written by Lauf alone.",
            status(vec![
                ("address", address()),
                ("traffic", traffic()),
                ("url", text("Where the service is reached.")),
            ]),
        ),
    )
}

/// A revision.
pub(crate) fn revision() -> Schema {
    top(
        "One state of a service's code and settings, which never changes.",
        revision_spec(),
        object(
            "What is known of it. Written by Lauf alone.",
            status(vec![
                ("actualReplicas", int32("Instances that can take requests.")),
                (
                    "containerStatuses",
                    list(
                        "The containers' images.",
                        object(
                            "A container's image.",
                            vec![
                                ("imageDigest", text("The image by its digest.")),
                                ("name", text("The container's name.")),
                            ],
                        ),
                    ),
                ),
                ("desiredReplicas", int32("Instances that are wanted.")),
                ("imageDigest", text("The image by its digest.")),
                ("logUrl", text("Where its logs are.")),
            ]),
        ),
    )
}

fn status(own: Vec<(&'static str, Schema)>) -> Vec<(&'static str, Schema)> {
    let mut all = vec![
        ("annotations", map("Notes on the state.", text("A note."))),
        (
            "conditions",
            list("What is true of it at this time.", condition()),
        ),
        (
            "observedGeneration",
            int64("The generation that the rest of the status is about."),
        ),
    ];
    all.extend(own);
    all
}

fn condition() -> Schema {
    object(
        "Whether one thing is true of an object.",
        vec![
            ("lastTransitionTime", time("When the status last changed.")),
            ("message", text("A sentence for people.")),
            ("reason", text("A word for programs.")),
            (
                "severity",
                text("How much it matters when it is not true; empty for Error."),
            ),
            ("status", text("True, False or Unknown.")),
            ("type", text("What it is about, such as Ready.")),
        ],
    )
    .required(&["status", "type"])
}

fn address() -> Schema {
    object(
        "Where it is reached.",
        vec![
            ("CACerts", text("Not used.")),
            ("audience", text("Not used.")),
            ("name", text("Not used.")),
            ("url", text("The URL.")),
        ],
    )
}

/// Where requests go: one value, for shares that two sides set would not add up.
fn traffic() -> Schema {
    list(
        "Where requests go. The percentages add up to 100. Without any, all go to the latest ready \
         revision.",
        object(
            "A revision and its share of the requests.",
            vec![
                (
                    "configurationName",
                    text("Not allowed in a service, which has one configuration."),
                ),
                (
                    "latestRevision",
                    truth("Whether it follows the latest ready revision."),
                ),
                (
                    "percent",
                    int64("The share of the requests, from 0 to 100."),
                ),
                (
                    "revisionName",
                    text("The revision, unless it follows the latest."),
                ),
                (
                    "tag",
                    text("A name under which this target has a URL of its own."),
                ),
                ("url", text("The tag's URL. Read-only.")),
            ],
        ),
    )
}

fn template() -> Schema {
    object(
        "The next revision. A change of it makes one.",
        vec![("metadata", meta::object_meta()), ("spec", revision_spec())],
    )
}

fn revision_spec() -> Schema {
    object(
        "What a revision runs.",
        vec![
            ("affinity", refused("Not supported.")),
            (
                "automountServiceAccountToken",
                refused("Not supported: containers get no token of Kubernetes."),
            ),
            (
                "containerConcurrency",
                int64(
                    "How many requests one instance may have at a time, from 1 to 1000. 0, or \
                     nothing, is 80, or 1 with less than one CPU.",
                ),
            ),
            (
                "containers",
                keyed(
                    "The containers. One of them has a port and serves the requests.",
                    BY_NAME,
                    container(),
                ),
            ),
            ("dnsConfig", refused("Not supported.")),
            ("dnsPolicy", text("Not supported.")),
            (
                "enableServiceLinks",
                truth("Accepted when false: there are no such links."),
            ),
            ("hostAliases", refused("Not supported.")),
            (
                "idleTimeoutSeconds",
                int64("Not supported: timeoutSeconds is the one bound of a request."),
            ),
            (
                "imagePullSecrets",
                refused("Not supported: sign in to the registry with Lauf's settings."),
            ),
            ("initContainers", refused("Not supported.")),
            ("nodeSelector", refused("Not supported.")),
            ("priorityClassName", text("Not supported.")),
            (
                "responseStartTimeoutSeconds",
                int64("Not supported: timeoutSeconds is the one bound of a request."),
            ),
            ("runtimeClassName", text("Not supported.")),
            ("schedulerName", text("Not supported.")),
            ("securityContext", refused("Not supported.")),
            (
                "serviceAccountName",
                text("The identity that instances run as."),
            ),
            (
                "timeoutSeconds",
                int64("How long a request may take, from 1 to 3600; 300 where nothing is said."),
            ),
            ("tolerations", refused("Not supported.")),
            ("topologySpreadConstraints", refused("Not supported.")),
            ("volumes", refused("Not supported yet.")),
        ],
    )
    .required(&["containers"])
}

fn container() -> Schema {
    object(
        "A container: what to run, with what resources, and how to tell that it is well.",
        vec![
            (
                "args",
                list(
                    "Replaces the image's CMD. $(NAME) stands for a variable.",
                    text("An argument."),
                ),
            ),
            (
                "command",
                list(
                    "Replaces the image's ENTRYPOINT. $(NAME) stands for a variable.",
                    text("A word of the command."),
                ),
            ),
            (
                "env",
                keyed(
                    "The environment, in this order.",
                    BY_NAME,
                    object(
                        "A variable.",
                        vec![
                            ("name", text("Its name.")),
                            (
                                "value",
                                text("Its value. $(NAME) stands for a variable before it."),
                            ),
                            ("valueFrom", refused("Not supported yet: secrets.")),
                        ],
                    )
                    .required(&["name"]),
                ),
            ),
            ("envFrom", refused("Not supported.")),
            (
                "image",
                text("The image, by tag or digest, of Lauf's own registry or another."),
            ),
            (
                "imagePullPolicy",
                text("Accepted: an image is resolved to a digest when the revision is made."),
            ),
            ("lifecycle", refused("Not supported.")),
            (
                "livenessProbe",
                probe("When it fails, the instance is replaced."),
            ),
            ("name", text("The container's name; one alone needs none.")),
            (
                "ports",
                keyed(
                    "The port on which it serves: one at most, 8080 where nothing is said.",
                    BY_PORT,
                    object(
                        "A port.",
                        vec![
                            ("containerPort", int32("The number, from 1 to 65535.")),
                            (
                                "name",
                                text("The protocol: http1, or h2c for HTTP/2 and gRPC."),
                            ),
                            ("protocol", text("TCP.")),
                        ],
                    ),
                ),
            ),
            (
                "readinessProbe",
                probe("While it fails, the instance gets no requests."),
            ),
            (
                "resources",
                object(
                    "How much it may use.",
                    vec![
                        (
                            "limits",
                            map(
                                "cpu (1, 500m, ...) and memory (512Mi, 2Gi, ...).",
                                number_or_text("An amount."),
                            ),
                        ),
                        (
                            "requests",
                            map(
                                "Not supported: the limits are what is reserved.",
                                number_or_text("An amount."),
                            ),
                        ),
                    ],
                ),
            ),
            ("securityContext", refused("Not supported.")),
            (
                "startupProbe",
                probe("Until it has passed, the instance is not started."),
            ),
            ("terminationMessagePath", text("Not supported.")),
            ("terminationMessagePolicy", text("Not supported.")),
            ("volumeMounts", refused("Not supported yet.")),
            ("workingDir", text("Replaces the image's WORKDIR.")),
        ],
    )
}

fn probe(description: &'static str) -> Schema {
    object(
        description,
        vec![
            ("exec", refused("Not supported.")),
            (
                "failureThreshold",
                int32("How often in a row it may fail; 3 where nothing is said."),
            ),
            (
                "grpc",
                object(
                    "Asks the gRPC health service.",
                    vec![
                        (
                            "port",
                            int32("The port; the container's where nothing is said."),
                        ),
                        ("service", text("The service to ask about.")),
                    ],
                ),
            ),
            (
                "httpGet",
                object(
                    "Sends a GET, which must be answered with a status from 200 to 399.",
                    vec![
                        ("host", text("Not supported.")),
                        (
                            "httpHeaders",
                            list(
                                "Headers to send.",
                                object(
                                    "A header.",
                                    vec![
                                        ("name", text("Its name.")),
                                        ("value", text("Its value.")),
                                    ],
                                )
                                .required(&["name", "value"]),
                            ),
                        ),
                        ("path", text("The path; / where nothing is said.")),
                        (
                            "port",
                            number_or_text("The port; the container's where nothing is said."),
                        ),
                        ("scheme", text("HTTP.")),
                    ],
                ),
            ),
            (
                "initialDelaySeconds",
                int32("How long to wait before the first time."),
            ),
            (
                "periodSeconds",
                int32("How often; every 10 seconds where nothing is said."),
            ),
            (
                "successThreshold",
                int32("How often in a row it must pass; 1 where nothing is said."),
            ),
            (
                "tcpSocket",
                object(
                    "Opens a connection.",
                    vec![
                        ("host", text("Not supported.")),
                        (
                            "port",
                            number_or_text("The port; the container's where nothing is said."),
                        ),
                    ],
                ),
            ),
            (
                "terminationGracePeriodSeconds",
                int64("Not supported: it is 10 seconds."),
            ),
            (
                "timeoutSeconds",
                int32("How long an answer may take; 1 second where nothing is said."),
            ),
        ],
    )
}
