#!/usr/bin/env python3
"""Verifies an exported audit trail of transmute, independently of the extension.

Written from docs/audit-format.md alone; needs nothing but Python 3.8.

    psql -XAtc 'SELECT transmute.audit_export()' > trail.jsonl
    python3 verify.py trail.jsonl --head 12:ab34...

Prints "ok: N events, head SEQ:HEX" and exits with 0, or the first fault as "fault: KIND at SEQ: text" and exits with 1.
Exits with 2 when it cannot read its input or its arguments. Without --head a removed tail cannot be noticed: the answer
speaks for the events up to the head that it prints.
"""

import argparse
import hashlib
import json
import re
import struct
import sys

DOMAIN = b"transmute-audit-v1\x00"
ENCODING_VERSION = 1
EMPTY = (0, bytes(32))

INTEGERS = ("seq", "encoding_version", "at_us", "transaction_at_us")
TEXTS = ("xid", "session_user", "current_user", "application_name", "event")
OPTIONAL_TEXTS = ("client_addr", "migration_id", "from_state", "to_state", "detail")
HASHES = ("prev_hash", "hash")

# What is hashed, in this order.
FIELDS = INTEGERS + (
    "xid",
    "session_user",
    "current_user",
    "application_name",
    "client_addr",
    "migration_id",
    "event",
    "from_state",
    "to_state",
    "detail",
)


class Fault(Exception):
    """The first thing that is wrong with a trail."""

    def __init__(self, kind, seq, text):
        super().__init__(f"{kind} at {seq}: {text}")
        self.kind = kind
        self.seq = seq


class Malformed(Exception):
    """A line that is not a record."""


def encode(value):
    """The bytes of one field: NULL, integer or text."""
    if value is None:
        return b"\x00"
    if isinstance(value, int):
        return b"\x02" + struct.pack(">q", value)
    text = value.encode("utf-8")
    return b"\x01" + struct.pack(">Q", len(text)) + text


def record_hash(prev_hash, record):
    """The hash that a record has as the successor of the one with hash prev_hash."""
    fields = b"".join(encode(record[name]) for name in FIELDS)
    return hashlib.sha256(DOMAIN + prev_hash + fields).digest()


def unique_keys(pairs):
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Malformed("a key occurs twice")
    return result


def refuse_constant(name):
    raise Malformed(f"{name} is not JSON")


def parse_line(line):
    """A line of the export as a dictionary, its two hashes as bytes."""
    try:
        record = json.loads(line.decode("utf-8"), object_pairs_hook=unique_keys, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not a JSON text: {error}") from error
    if not isinstance(record, dict):
        raise Malformed("not a JSON object")
    for name in record:
        if name not in FIELDS and name not in HASHES:
            raise Malformed(f"unknown key {name!r}")
    for name in FIELDS + HASHES:
        if name not in record:
            raise Malformed(f"key {name!r} is missing")
        check_value(name, record[name])
    for name in HASHES:
        record[name] = bytes.fromhex(record[name])
    return record


def check_value(name, value):
    if name in INTEGERS:
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise Malformed(f"{name} is not a 64-bit integer")
    elif value is None and name in OPTIONAL_TEXTS:
        return
    elif not isinstance(value, str):
        raise Malformed(f"{name} is not a text")
    elif name in HASHES:
        if not re.fullmatch("[0-9a-f]{64}", value):
            raise Malformed(f"{name} is not 64 lower-case hex digits")
    else:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Malformed(f"{name} is not valid Unicode") from error


def verify(lines, after=EMPTY, expected=None):
    """Verifies lines (bytes, without line feed). Returns (number of events, head); raises the first Fault."""
    start = head = after
    count = 0
    for line in lines:
        head = step(line, head)
        count += 1
        if expected is not None and expected[0] == head[0] and expected[1] != head[1]:
            raise Fault("head_mismatch", head[0], "the trail is whole, but is not the one whose head was kept")
    if expected is not None:
        check_expected(start, head, expected)
    return count, head


def step(line, head):
    """The head after one more line."""
    last, last_hash = head
    wanted = last + 1
    try:
        record = parse_line(line)
    except Malformed as error:
        raise Fault("malformed", wanted, str(error)) from error
    seq = record["seq"]
    follows = record["prev_hash"] == last_hash
    if seq != wanted and follows:
        raise Fault("content_changed", wanted, f"the event follows event {last} but its number is {seq}")
    if seq > wanted:
        raise Fault("sequence_gap", wanted, f"expected event {wanted}, found {seq}")
    if seq < wanted:
        raise Fault("out_of_order", seq, f"expected event {wanted}, found {seq} again")
    if record["encoding_version"] != ENCODING_VERSION:
        raise Fault("unknown_encoding", seq, f"encoding {record['encoding_version']} is not known here")
    if not follows:
        raise Fault("link_broken", seq, f"the event does not follow event {last}")
    if record_hash(last_hash, record) != record["hash"]:
        raise Fault("content_changed", seq, "the event's content does not have the stored hash")
    if seq == 1 and record["event"] != "genesis":
        raise Fault("not_genesis", seq, "the first event is not genesis")
    return seq, record["hash"]


def check_expected(start, head, expected):
    """What can only be known at the end of the trail."""
    if expected[0] == start[0] and expected[1] != start[1]:
        raise Fault("head_mismatch", start[0], "the trail does not start where the head was kept")
    if expected[0] > head[0]:
        raise Fault("tail_missing", head[0] + 1, f"the trail ends at {head[0]}, the head that was kept is {expected[0]}")
    if expected[0] < start[0]:
        raise Fault("head_not_covered", expected[0], f"verified from {start[0]} on")


def parse_head(text):
    match = re.fullmatch("([0-9]{1,19}):([0-9a-fA-F]{64})", text.strip())
    if match is None or int(match.group(1)) >= 2**63:
        raise argparse.ArgumentTypeError("a head is SEQ:HEX, a number and 64 hex digits")
    return int(match.group(1)), bytes.fromhex(match.group(2))


def format_head(head):
    return f"{head[0]}:{head[1].hex()}"


def read_lines(stream):
    for line in stream:
        yield line[:-1] if line.endswith(b"\n") else line


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Verify an exported transmute audit trail.")
    parser.add_argument("file", nargs="?", default="-", help="JSON lines from transmute.audit_export(); - is stdin")
    parser.add_argument("--head", type=parse_head, metavar="SEQ:HEX", help="a head kept earlier, which must be in the trail")
    parser.add_argument(
        "--after", type=parse_head, metavar="SEQ:HEX", default=EMPTY, help="a trusted head that the first event follows"
    )
    options = parser.parse_args(arguments)
    try:
        stream = sys.stdin.buffer if options.file == "-" else open(options.file, "rb")
        with stream:
            count, head = verify(read_lines(stream), options.after, options.head)
    except OSError as error:
        print(f"cannot read {options.file}: {error.strerror}", file=sys.stderr)
        return 2
    except Fault as fault:
        print(f"fault: {fault}")
        return 1
    print(f"ok: {count} events, head {format_head(head)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
