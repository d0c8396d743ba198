"""Schemas: what they hold back, and their revisions."""

import json

from google.api_core import exceptions
from google.pubsub_v1.types import Encoding, Schema, SchemaView

from world import expect, fails


def record(*fields):
    return json.dumps({"type": "record", "name": "State", "fields": [{"name": n, "type": t} for n, t in fields]})


AVRO = Schema(type_=Schema.Type.AVRO, definition=record(("name", "string"), ("area", ["null", "double"])))
PROTO = Schema(
    type_=Schema.Type.PROTOCOL_BUFFER,
    definition='syntax = "proto3"; message State { string name = 1; int32 rank = 2; }',
)
# Of each kind and encoding, a message that fits and one that does not.
MESSAGES = {
    "avro": [
        (Encoding.JSON, b'{"name": "Ohio", "area": {"double": 1.5}}', b'{"name": 1, "area": null}'),
        (Encoding.BINARY, b"\x08Ohio\x00", b"\x08Oh"),
    ],
    "proto": [
        (Encoding.JSON, b'{"name": "Ohio", "rank": 7}', b'{"name": "Ohio", "rank": "many"}'),
        (Encoding.BINARY, b"\x0a\x04Ohio\x10\x07", b"\x0a\x7f"),
    ],
}


def make(world, schema):
    name = world.name("schemas")
    return world.schemas.create_schema(parent=world.project, schema=schema, schema_id=name.split("/")[-1])


def hold(world, schema, messages):
    made = make(world, schema)
    for encoding, good, bad in messages:
        topic = world.topic(schema_settings={"schema": made.name, "encoding": encoding})
        subscription = world.subscription(topic)
        world.publish(topic, good)
        fails(exceptions.InvalidArgument, f"{encoding.name}", lambda topic=topic, bad=bad: world.publish(topic, bad))
        got = world.pull(subscription)[0].message
        expect("data", got.data, good)
        expect("schema", got.attributes["googclient_schemaname"], made.name)
        expect("encoding", got.attributes["googclient_schemaencoding"], encoding.name)
        expect("revision", got.attributes["googclient_schemarevisionid"], made.revision_id)


def avro_holds_back_what_does_not_fit(world):
    hold(world, AVRO, MESSAGES["avro"])


def protobuf_holds_back_what_does_not_fit(world):
    hold(world, PROTO, MESSAGES["proto"])


def validate(world, schema, messages):
    made = make(world, schema)
    for encoding, good, bad in messages:
        for which in [{"name": made.name}, {"schema": schema}]:
            asked = {"parent": world.project, "encoding": encoding, **which}
            world.schemas.validate_message(request={**asked, "message": good})
            fails(
                exceptions.InvalidArgument, f"{encoding.name} {list(which)}",
                lambda asked=asked, bad=bad: world.schemas.validate_message(request={**asked, "message": bad}),
            )


def avro_messages_are_validated(world):
    validate(world, AVRO, MESSAGES["avro"])


def protobuf_messages_are_validated(world):
    validate(world, PROTO, MESSAGES["proto"])


def avro_definitions_are_validated(world):
    world.schemas.validate_schema(parent=world.project, schema=AVRO)
    wrong = Schema(type_=Schema.Type.AVRO, definition='{"type": "recrd"}')
    fails(exceptions.InvalidArgument, "validate", lambda: world.schemas.validate_schema(parent=world.project, schema=wrong))
    fails(exceptions.InvalidArgument, "create", lambda: make(world, wrong))


def protobuf_definitions_are_validated(world):
    world.schemas.validate_schema(parent=world.project, schema=PROTO)
    wrong = Schema(type_=Schema.Type.PROTOCOL_BUFFER, definition="message {")
    fails(exceptions.InvalidArgument, "validate", lambda: world.schemas.validate_schema(parent=world.project, schema=wrong))
    fails(exceptions.InvalidArgument, "create", lambda: make(world, wrong))


def schemas_live_and_die(world):
    made, schemas = make(world, AVRO), world.schemas
    short = made.name.split("/")[-1]
    fails(
        exceptions.AlreadyExists, "twice",
        lambda: schemas.create_schema(parent=world.project, schema=AVRO, schema_id=short),
    )
    read = schemas.get_schema(name=made.name)
    expect("read", (read.name, read.type_, read.definition), (made.name, AVRO.type_, AVRO.definition))
    expect("listed", world.own(schemas.list_schemas(parent=world.project)), [made.name])
    basic = list(schemas.list_schemas(request={"parent": world.project, "view": SchemaView.BASIC}))
    expect("without definitions", [s.definition for s in basic if s.name == made.name], [""])
    schemas.delete_schema(name=made.name)
    expect("after", world.own(schemas.list_schemas(parent=world.project)), [])


def a_schema_that_is_not_there(world):
    name, schemas = world.name("schemas"), world.schemas
    fails(exceptions.NotFound, "get", lambda: schemas.get_schema(name=name))
    fails(exceptions.NotFound, "delete", lambda: schemas.delete_schema(name=name))
    fails(exceptions.NotFound, "topic", lambda: world.topic(schema_settings={"schema": name, "encoding": Encoding.JSON}))


def schemas_have_revisions(world):
    made, schemas = make(world, AVRO), world.schemas
    wider = record(("name", "string"), ("area", ["null", "double"]), ("rank", ["null", "int"]))
    changed = schemas.commit_schema(
        name=made.name, schema=Schema(name=made.name, type_=Schema.Type.AVRO, definition=wider)
    )
    expect("another", changed.revision_id != made.revision_id, True)
    expect("latest", schemas.get_schema(name=made.name).definition, wider)
    expect("first", schemas.get_schema(name=f"{made.name}@{made.revision_id}").definition, AVRO.definition)
    listed = [s.revision_id for s in schemas.list_schema_revisions(name=made.name)]
    expect("revisions", sorted(listed), sorted([changed.revision_id, made.revision_id]))
    back = schemas.rollback_schema(name=made.name, revision_id=made.revision_id)
    expect("back", (back.definition, back.revision_id in listed), (AVRO.definition, False))
    schemas.delete_schema_revision(name=f"{made.name}@{changed.revision_id}", revision_id="")
    left = [s.revision_id for s in schemas.list_schema_revisions(name=made.name)]
    expect("left", sorted(left), sorted([back.revision_id, made.revision_id]))


def the_only_revision_stays(world):
    made = make(world, AVRO)
    name = f"{made.name}@{made.revision_id}"
    fails(
        exceptions.InvalidArgument, "delete",
        lambda: world.schemas.delete_schema_revision(request={"name": name}),
    )


def a_topic_of_a_deleted_schema_takes_nothing(world):
    made = make(world, AVRO)
    topic = world.topic(schema_settings={"schema": made.name, "encoding": Encoding.JSON})
    world.schemas.delete_schema(name=made.name)
    expect("schema", world.publisher.get_topic(topic=topic).schema_settings.schema, "_deleted-schema_")
    fails(exceptions.NotFound, "publish", lambda: world.publish(topic, MESSAGES["avro"][0][1]))


STORIES = [
    avro_holds_back_what_does_not_fit,
    protobuf_holds_back_what_does_not_fit,
    avro_messages_are_validated,
    protobuf_messages_are_validated,
    avro_definitions_are_validated,
    protobuf_definitions_are_validated,
    schemas_live_and_die,
    a_schema_that_is_not_there,
    schemas_have_revisions,
    the_only_revision_stays,
    a_topic_of_a_deleted_schema_takes_nothing,
]
