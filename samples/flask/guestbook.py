"""A guestbook: a page with a form, and a JSON API beside it."""

import os
import threading
from collections import deque
from datetime import datetime, timezone

from flask import Flask, jsonify, redirect, render_template, request, url_for

MAX_ENTRIES = 500
MAX_NAME = 60
MAX_TEXT = 1000

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 64 * 1024

_entries = deque(maxlen=MAX_ENTRIES)
_lock = threading.Lock()
_next_id = 1


class Refused(ValueError):
    """An entry that cannot be taken; its text is for the person who wrote it."""


def sign(name, text):
    """Adds an entry and returns it; raises Refused when a field is empty or too long."""
    global _next_id
    name = clean("name", name, MAX_NAME)
    text = clean("text", text, MAX_TEXT)
    with _lock:
        entry = {
            "id": _next_id,
            "name": name,
            "text": text,
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        _next_id += 1
        _entries.appendleft(entry)
    return entry


def clean(field, value, longest):
    """Returns the text without blanks around it; raises Refused when there is none or too much of it."""
    if not isinstance(value, str) or not value.strip() or len(value) > longest:
        raise Refused(f"{field} must be a text of 1 to {longest} characters")
    return value.strip()


def entries():
    """All entries, newest first."""
    with _lock:
        return list(_entries)


def page(error=None, status=200):
    """The page, with what went wrong if anything did."""
    return (
        render_template(
            "page.html",
            title=os.environ.get("TITLE", "Guestbook"),
            entries=entries(),
            error=error,
            service=os.environ.get("K_SERVICE", "flask"),
            revision=os.environ.get("K_REVISION", "local"),
        ),
        status,
    )


@app.get("/")
def show():
    return page()


@app.post("/")
def sign_on_page():
    try:
        sign(request.form.get("name"), request.form.get("text"))
    except Refused as refused:
        return page(str(refused), 400)
    return redirect(url_for("show"), code=303)


@app.get("/api/entries")
def list_entries():
    return jsonify(entries())


@app.post("/api/entries")
def add_entry():
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        return jsonify(error="send a JSON object with name and text"), 400
    try:
        return jsonify(sign(body.get("name"), body.get("text"))), 201
    except Refused as refused:
        return jsonify(error=str(refused)), 400
