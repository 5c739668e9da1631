#!/usr/bin/env python3
"""Tests of verify.py: python3 -m unittest discover pgrx-tests/audit"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import verify  # noqa: E402  (the folder is not a package)

FORMAT = os.path.join(HERE, "..", "..", "docs", "audit-format.md")


def document_block(name):
    """The fenced block that follows <!-- name --> in the format's description."""
    with open(FORMAT, encoding="utf-8") as file:
        match = re.search(f"<!-- {name} -->\n```[a-z]*\n(.*?)\n```", file.read(), re.DOTALL)
    return match.group(1)


def record(seq):
    return {
        "seq": seq,
        "encoding_version": 1,
        "at_us": 1767225600000000 - seq,
        "transaction_at_us": 1767225600000000,
        "xid": str(700 + seq),
        "session_user": "zo\u00eb",
        "current_user": "owner",
        "application_name": "",
        "client_addr": "192.0.2.7" if seq % 2 else None,
        "migration_id": None if seq == 1 else "m",
        "event": "genesis" if seq == 1 else "state",
        "from_state": None,
        "to_state": "RUNNING" if seq % 3 == 0 else None,
        "detail": '{"n": %d, "text": "a\\nb\u2028"}' % seq,
    }


def link(records):
    """Gives records their hashes, each onto the one before."""
    chain, prev = [], bytes(32)
    for fields in records:
        own = verify.record_hash(prev, fields)
        chain.append({**fields, "prev_hash": prev.hex(), "hash": own.hex()})
        prev = own
    return chain


def trail(length):
    return link(record(seq) for seq in range(1, length + 1))


def lines(chain):
    return [json.dumps(fields, ensure_ascii=False).encode() for fields in chain]


def head(chain, seq):
    return (seq, bytes.fromhex(chain[seq - 1]["hash"])) if seq else verify.EMPTY


def fields_of(entry):
    return {name: entry[name] for name in verify.FIELDS}


class Case(unittest.TestCase):
    def assert_fault(self, chain, kind, seq, **options):
        with self.assertRaises(verify.Fault) as caught:
            verify.verify(chain if chain and isinstance(chain[0], bytes) else lines(chain), **options)
        self.assertEqual((caught.exception.kind, caught.exception.seq), (kind, seq))


class Untouched(Case):
    def test_the_documented_example_verifies(self):
        export = document_block("example export").encode().split(b"\n")
        count, reached = verify.verify(export)
        self.assertEqual((count, verify.format_head(reached)), (3, document_block("example head")))

    def test_the_documented_bytes_have_the_documented_hash(self):
        digits = re.sub("#.*|\\s", "", document_block("example bytes"))
        first = json.loads(document_block("example export").split("\n")[0])
        self.assertEqual(verify.hashlib.sha256(bytes.fromhex(digits)).hexdigest(), first["hash"])

    def test_a_trail_verifies_from_any_place_against_any_later_head(self):
        chain = trail(8)
        for start in range(9):
            for kept in range(start, 9):
                answer = verify.verify(lines(chain[start:]), head(chain, start), head(chain, kept))
                self.assertEqual(answer, (8 - start, head(chain, 8)))

    def test_an_empty_trail_has_the_empty_head(self):
        self.assertEqual(verify.verify([]), (0, verify.EMPTY))

    def test_escapes_and_the_order_of_keys_do_not_matter(self):
        chain = trail(3)
        shuffled = [json.dumps(dict(reversed(list(entry.items())))).encode() for entry in chain]
        self.assertEqual(verify.verify(shuffled)[1], head(chain, 3))


class Tampered(Case):
    def test_any_change_of_any_field_is_named_where_it_is(self):
        for at in range(6):
            for name in verify.FIELDS + verify.HASHES:
                chain = trail(6)
                old = chain[at][name]
                kind = "content_changed"
                if name == "encoding_version":
                    new, kind = 2, "unknown_encoding"
                elif name in verify.INTEGERS:
                    new = old + 100
                elif name in verify.HASHES:
                    new = ("0" if old[0] != "0" else "1") + old[1:]
                    kind = "link_broken" if name == "prev_hash" else kind
                elif name in verify.OPTIONAL_TEXTS:
                    new = "" if old is None else None
                else:
                    new = old + " "
                chain[at][name] = new
                with self.subTest(at=at, name=name):
                    self.assert_fault(chain, kind, at + 1)

    def test_every_bit_of_a_text_counts(self):
        for old, new in [
            ('{"n": 1.0}', '{"n": 1.00}'),
            ("\u00e9", "e\u0301"),
            ("a", "a\n"),
            ('{"a":1,"b":2}', '{"b":2,"a":1}'),
            ("", None),
        ]:
            chain = link([record(1), {**record(2), "detail": old}])
            chain[1]["detail"] = new
            self.assert_fault(chain, "content_changed", 2)

    def test_text_cannot_move_between_fields(self):
        chain = link([{**record(1), "session_user": "ab", "current_user": "c"}])
        chain[0].update(session_user="a", current_user="bc")
        self.assert_fault(chain, "content_changed", 1)

    def test_swapped_events_are_named_at_the_first(self):
        chain = trail(6)
        chain[2], chain[4] = chain[4], chain[2]
        self.assert_fault(chain, "sequence_gap", 3)
        chain[2]["seq"], chain[4]["seq"] = 3, 5
        self.assert_fault(chain, "link_broken", 3)

    def test_removed_events_are_named_at_the_first_missing(self):
        for first in range(5):
            chain = trail(6)
            del chain[first : first + 1]
            self.assert_fault(chain, "sequence_gap", first + 1)

    def test_a_removal_hidden_by_new_numbers_is_found(self):
        chain = trail(6)
        del chain[2]
        for seq, entry in enumerate(chain, 1):
            entry["seq"] = seq
        self.assert_fault(chain, "link_broken", 3)

    def test_a_duplicate_is_named(self):
        chain = trail(6)
        self.assert_fault(chain[:4] + chain[1:2] + chain[4:], "out_of_order", 2)

    def test_an_inserted_event_with_a_hash_of_its_own_is_found(self):
        chain = trail(6)
        forged = fields_of(record(4))
        forged["event"] = "forged"
        own = verify.record_hash(bytes.fromhex(chain[2]["hash"]), forged)
        chain.insert(3, {**forged, "prev_hash": chain[2]["hash"], "hash": own.hex()})
        self.assert_fault(chain, "out_of_order", 4)

    def test_a_replaced_event_with_a_hash_of_its_own_breaks_the_next_link(self):
        chain = trail(6)
        chain[3]["event"] = "forged"
        chain[3]["hash"] = verify.record_hash(bytes.fromhex(chain[2]["hash"]), fields_of(chain[3])).hex()
        self.assert_fault(chain, "link_broken", 5)

    def test_a_trail_that_does_not_begin_with_genesis_is_refused(self):
        self.assert_fault(link([{**record(1), "event": "state"}]), "not_genesis", 1)
        self.assert_fault(trail(4)[1:], "sequence_gap", 1)

    def test_random_damage_of_a_line_never_passes(self):
        generator = random.Random(1)
        whole = lines(trail(3))
        for _ in range(2000):
            damaged = list(whole)
            at = generator.randrange(3)
            line = bytearray(damaged[at])
            line[generator.randrange(len(line))] ^= 1 << generator.randrange(8)
            damaged[at] = bytes(line)
            try:
                parsed = verify.parse_line(damaged[at])
            except verify.Malformed:
                parsed = None
            if parsed == verify.parse_line(whole[at]):
                continue  # white space of another kind: the same record
            with self.assertRaises(verify.Fault, msg=damaged[at]):
                verify.verify(damaged)


class KeptHeads(Case):
    def test_a_cut_tail_is_found_against_a_newer_head_only(self):
        chain = trail(6)
        for keep in range(7):
            for kept in range(7):
                if kept > keep:
                    self.assert_fault(chain[:keep], "tail_missing", keep + 1, expected=head(chain, kept))
                else:
                    self.assertEqual(verify.verify(lines(chain[:keep]), expected=head(chain, kept))[0], keep)

    def test_a_rewritten_trail_is_found_against_any_head_from_there_on(self):
        chain = trail(6)
        rewritten = link({**fields_of(e), "event": "x"} if e["seq"] == 3 else fields_of(e) for e in chain)
        verify.verify(lines(rewritten))
        for kept in (3, 4, 6):
            self.assert_fault(rewritten, "head_mismatch", kept, expected=head(chain, kept))

    def test_a_head_before_the_start_is_not_taken_for_met(self):
        chain = trail(6)
        self.assert_fault(chain[3:], "head_not_covered", 2, after=head(chain, 3), expected=head(chain, 2))
        self.assert_fault([], "head_mismatch", 3, after=head(chain, 3), expected=(3, bytes(32)))

    def test_a_wrong_start_is_found(self):
        self.assert_fault(trail(6)[3:], "link_broken", 4, after=(3, bytes(32)))


class BadLines(Case):
    def test_what_is_not_a_record_is_malformed(self):
        good = trail(1)[0]
        text = lines([good])[0]
        cases = {
            "nothing": b"",
            "no JSON": b"{",
            "no UTF-8": text.replace("\u00eb".encode(), b"\xff"),
            "no object": b"[]",
            "two objects": text + text,
            "key twice": text[:-1] + b', "seq": 1}',
            "key unknown": text[:-1] + b', "more": 1}',
            "lone surrogate": text.replace("\u00eb".encode(), b"\\ud800"),
            "not a number": text.replace(b'"seq": 1', b'"seq": NaN'),
            "too deep": b"[" * 100000,
        }
        changes = {
            "float": {"seq": 1.0},
            "flag": {"encoding_version": True},
            "number as text": {"at_us": "1"},
            "too large": {"at_us": 2**63},
            "text as number": {"xid": 701},
            "NULL where none may be": {"event": None},
            "upper-case hash": {"hash": good["hash"].upper()},
            "short hash": {"prev_hash": "00"},
            "hash with line feed": {"hash": good["hash"] + "\n"},
        }
        cases.update((name, lines([{**good, **change}])[0]) for name, change in changes.items())
        for name in verify.FIELDS + verify.HASHES:
            cases[f"without {name}"] = lines([{key: good[key] for key in good if key != name}])[0]
        for name, line in cases.items():
            with self.subTest(name):
                self.assert_fault([line], "malformed", 1)


class CommandLine(unittest.TestCase):
    def run_verify(self, *arguments, stdin=b""):
        command = [sys.executable, os.path.join(HERE, "verify.py"), *arguments]
        done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        return done.returncode, done.stdout.decode().strip()

    def setUp(self):
        self.chain = trail(4)
        self.text = b"\n".join(lines(self.chain)) + b"\n"
        self.newest = verify.format_head(head(self.chain, 4))

    def test_a_good_trail_from_stdin(self):
        self.assertEqual(self.run_verify(stdin=self.text), (0, f"ok: 4 events, head {self.newest}"))
        self.assertEqual(self.run_verify("-", "--head", self.newest, stdin=self.text)[0], 0)

    def test_a_file_from_the_middle(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"\n".join(lines(self.chain[2:])))
            file.flush()
            start = verify.format_head(head(self.chain, 2))
            self.assertEqual(self.run_verify(file.name, "--after", start), (0, f"ok: 2 events, head {self.newest}"))

    def test_the_first_fault_is_printed(self):
        cut = b"\n".join(lines(self.chain[:3]))
        code, printed = self.run_verify("--head", self.newest, stdin=cut)
        self.assertEqual((code, printed.split(":")[:2]), (1, ["fault", " tail_missing at 4"]))
        code, printed = self.run_verify(stdin=self.text.replace(b'"702"', b'"703"'))
        self.assertEqual((code, printed.split(":")[:2]), (1, ["fault", " content_changed at 2"]))

    def test_what_cannot_be_read_is_no_verdict(self):
        self.assertEqual(self.run_verify(os.path.join(HERE, "no-such-file"))[0], 2)
        self.assertEqual(self.run_verify("--head", "4:ab")[0], 2)


if __name__ == "__main__":
    unittest.main()
