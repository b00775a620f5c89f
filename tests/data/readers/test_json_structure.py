from hypothesis import given, settings
from hypothesis import strategies as st

from tfpipe.data.readers.json_structure import Scanner


def by_hand(content: bytes, depth: int):
    """The same, a byte at a time."""
    found, in_string, escaped = [], False, False
    for place, byte in enumerate(content):
        character, was_escaped = chr(byte), escaped
        escaped = character == "\\" and not was_escaped
        if character == '"' and not was_escaped:
            in_string = not in_string
        elif not in_string and character in "[]{},":
            depth += {"[": 1, "{": 1, "]": -1, "}": -1, ",": 0}[character]
            found.append((place, byte, depth))
    return found


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(b'\\\\""[]{},a\n'), max_size=60), st.lists(st.integers(0, 9), max_size=60))
def test_places_and_depths_however_the_bytes_are_cut(content, sizes):
    content, scanner, found, at = bytes(content), Scanner(depth=1), [], 0
    for size in [*sizes, len(content)]:
        chunk = content[at : at + size]
        found += [
            (at + int(place), int(byte), int(depth)) for place, byte, depth in zip(*scanner.feed(chunk), strict=True)
        ]
        at += len(chunk)
    assert found == by_hand(content, 1)
