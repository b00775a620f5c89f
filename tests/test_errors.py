from tfpipe.errors import InputError


def test_a_message_that_quotes_a_book_keeps_its_beginning_and_its_end():
    message = str(InputError("run.yaml: " + "x" * 1_000_000 + "; put it in quotes"))
    assert len(message) < 2100 and message.startswith("run.yaml: x") and message.endswith("x; put it in quotes")
    assert str(InputError("short")) == "short"
