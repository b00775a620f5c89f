"""Well-known data sets, in the form in which they are distributed; the texts are invented."""

from __future__ import annotations

import gzip

from data.producers.example import Example

_SNLI = "gold_label\tsentence1_binary_parse\tsentence1\tsentence2\tlabel1\n"
_MRPC = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
_AGNEWS = {"1": "World", "2": "Sports"}
_JIGSAW = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
_HEAD = '"id","comment_text",' + ",".join(f'"{name}"' for name in _JIGSAW) + "\r\n"
_SHORT = [("a small gem", "pos"), ("a joyless film", "neg")]

EXAMPLES = [
    Example(
        "GLUE",
        "MRPC, pairs with quotes as characters",
        {
            "train.tsv": _MRPC + '1\t1\t2\tHe said " yes .\tHe said yes .\r\n'
            '0\t3\t4\t"We left , " she said .\tThey stayed .\r\n1\t5\t6\tA "\tB\r\n'
        },
        [
            (('He said " yes .', "He said yes ."), "1"),
            (('"We left , " she said .', "They stayed ."), "0"),
            (('A "', "B"), "1"),
        ],
        {"text_column": "#1 String", "text_pair_column": "#2 String", "label_column": "Quality"},
        read="as it is; a quote in a TSV counts as a character where fewer rows are lost that way",
    ),
    Example(
        "GLUE",
        "SST-2, a sentence a row",
        {"train.tsv": 'sentence\tlabel\n"we leave at noon\t0\nall of us"\t1\nlovely\t1\n'},
        [('"we leave at noon', "0"), ('all of us"', "1"), ("lovely", "1")],
        {"text_column": "sentence"},
        read="a quotation over two rows swallows no row; tfpipe reports it",
        says="data.quoting",
    ),
    Example(
        "GLUE",
        "CoLA, no header",
        {"train.tsv": "gj04\t1\t\tThe twins sang.\ngj04\t0\t*\tTwins the sang.\n"},
        [("The twins sang.", "1"), ("Twins the sang.", "0")],
        {"columns": ["source", "label", "mark", "text"]},
    ),
    Example(
        "SNLI 1.0",
        "TSV",
        {
            "snli_1.0_train.txt": _SNLI + "neutral\t( A dog )\tA dog runs.\tIt is glad.\tneutral\n"
            "-\t( A )\tA man.\tHe sits.\tneutral\nentailment\t( B )\tB runs.\tB moves.\tentailment\n"
        },
        [(("A dog runs.", "It is glad."), "neutral"), (("B runs.", "B moves."), "entailment")],
        {"text_column": "sentence1", "text_pair_column": "sentence2", "label_column": "gold_label"},
        unlabeled=1,
        read="`-` in a column `gold_label` is no label",
        says="read as tsv, by its content",
    ),
    Example(
        "SNLI 1.0",
        "JSON Lines",
        {
            "snli_1.0_train.jsonl": '{"gold_label": "neutral", "sentence1": "A dog runs.", "sentence2": "Glad."}\n'
            '{"gold_label": "-", "sentence1": "A man.", "sentence2": "He sits."}\n'
            '{"gold_label": "entailment", "sentence1": "B runs.", "sentence2": "B moves."}\n'
        },
        [(("A dog runs.", "Glad."), "neutral"), (("B runs.", "B moves."), "entailment")],
        {"text_column": "sentence1", "text_pair_column": "sentence2", "label_column": "gold_label"},
        unlabeled=1,
        read="the same",
    ),
    Example(
        "AG News",
        "CSV without a header",
        {"train.csv": '"1","Talks","Both said ""maybe"" \\wide."\n"2","Cup","They won."\n'},
        [('Talks Both said "maybe" \\wide.', "World"), ("Cup They won.", "Sports")],
        {"columns": ["label", "title", "body"], "text": "{title} {body}", "label_names": _AGNEWS},
    ),
    Example(
        "sentiment140",
        "CSV without a header, Windows' encoding",
        {"train.csv": b'"4","1","Mon","NO_QUERY","u","nice caf\xe9 "\n"0","2","Mon","NO_QUERY","v","rain, again "\n'},
        [("nice café ", "4"), ("rain, again ", "0")],
        {"columns": ["target", "id", "date", "flag", "user", "text"], "label_column": "target", "encoding": "cp1252"},
    ),
    Example(
        "SMS Spam Collection",
        "`SMSSpamCollection`",
        {"SMSSpamCollection": 'ham\tsee you "later\nspam\tWIN £100\n'},
        [('see you "later', "ham"), ("WIN £100", "spam")],
        {"format": "tsv", "columns": ["label", "text"]},
    ),
    Example(
        "SMS Spam Collection",
        "`spam.csv` of Kaggle",
        {"spam.csv": "v1,v2,,,\r\nham,see you,,,\r\nspam,WIN £100,,,\r\n".encode("cp1252")},
        [("see you", "ham"), ("WIN £100", "spam")],
        {"text_column": "v2", "label_column": "v1", "encoding": "cp1252"},
    ),
    Example(
        "Rotten Tomatoes",
        "`rt-polarity.pos`, `.neg`",
        {"rt-polarity.neg": "a joyless film \n", "rt-polarity.pos": "a naïve gem \n".encode("cp1252")},
        [("a joyless film ", "neg"), ("a naïve gem ", "pos")],
        {"format": "lines", "file_name": "rt-polarity.{label}", "encoding": "cp1252"},
        source="rt-polarity.*",
        read="a text a line; the file's name says the label",
    ),
    Example(
        "any",
        "a text a line, a compressed file for each label",
        {"pos.txt.gz": gzip.compress(b"a small gem\n"), "neg.txt.gz": gzip.compress(b"a joyless film\n")},
        [_SHORT[1], _SHORT[0]],
        {"format": "lines", "file_name": "{label}.txt.gz"},
        source="*.txt.gz",
        read="a text a line; the file's name says the label",
    ),
    Example(
        "TREC",
        "`train_5500.label`",
        {"train_5500.label": "DESC:manner How do kettles sing ?\nHUM:ind Who left ?\n"},
        [("How do kettles sing ?", "DESC"), ("Who left ?", "HUM")],
        {"format": "lines", "line": "{label}:{fine} {text}", "encoding": "cp1252"},
    ),
    Example(
        "financial_phrasebank",
        "`Sentences_50Agree.txt`",
        {"Sentences.txt": b"Sales rose to EUR 2 mn; write to a@b.example .@positive\r\nR\xf6da fell .@negative\r\n"},
        [("Sales rose to EUR 2 mn; write to a@b.example .", "positive"), ("Röda fell .", "negative")],
        {"format": "lines", "line": "{text}@{label}", "encoding": "cp1252"},
    ),
    Example(
        "fastText",
        "`__label__`",
        {"train.ft.txt": "__label__2 Great kettle: it sings\n__label__1 Sad kettle: it leaks\n"},
        [("Great kettle: it sings", "2"), ("Sad kettle: it leaks", "1")],
        read="by its content; tfpipe reports it",
        says="read as fasttext, by its content",
    ),
    Example(
        "aclImdb",
        "a text a file, `train/`, `test/`",
        {
            **{
                f"aclImdb/{split}/{label}/0_1.txt": f"{split} {label}"
                for split in ("train", "test")
                for label in ("neg", "pos")
            },
            "aclImdb/train/unsup/0_0.txt": "who knows",
            "aclImdb/train/labeledBow.feat": "9 0:9",
        },
        [("test neg", "neg"), ("test pos", "pos"), ("train neg", "neg"), ("train pos", "pos")],
        source="aclImdb",
        splits=("test", "test", "train", "train"),
        read="`unsup` is no class; tfpipe reports it",
        says="unsup: left out, as its texts have no label",
    ),
    Example(
        "Jigsaw",
        "columns of 0 and 1",
        {"train.csv": _HEAD + '"1","calm\n\nwords",0,0,0,0,0,0\r\n"2","you fool",1,0,0,0,1,0\r\n'},
        [("calm\n\nwords",), ("you fool", "toxic", "insult")],
        {"text_column": "comment_text", "label_column": _JIGSAW},
        task="multi_label",
        names=tuple(_JIGSAW),
        read="a column for each label; names and order are those of the setting",
    ),
    Example(
        "Jigsaw",
        "the same with its test rows, -1 where nobody judged",
        {
            "test.csv": _HEAD
            + '"1","calm",0,0,0,0,0,0\r\n"2","who knows",-1,-1,-1,-1,-1,-1\r\n"3","you fool",1,0,0,0,0,0\r\n'
        },
        [("calm",), ("you fool", "toxic")],
        {"text_column": "comment_text", "label_column": _JIGSAW},
        task="multi_label",
        unlabeled=1,
        read="a row of -1 has no label",
    ),
    Example(
        "20 Newsgroups",
        "`20news-18828`, a text a file",
        {"20news/alt.atheism/49960": b"From: caf\xe9\n", "20news/comp.windows.x/5": b"From: harbor\n"},
        [("From: café\n", "alt.atheism"), ("From: harbor\n", "comp.windows.x")],
        {"encoding": "cp1252"},
        source="20news",
        read="a folder per class",
    ),
    Example(
        "Yelp",
        "`review.json`",
        {"review.json": '{"review_id": "a", "stars": 5.0, "text": "fine tea"}\n{"stars": 1.0, "text": "cold tea"}\n'},
        [("fine tea", "5"), ("cold tea", "1")],
        {"label_column": "stars"},
        read="5.0 is 5",
        names=("1", "5"),
    ),
    Example(
        "GoEmotions",
        "ids with commas, no header",
        {"train.tsv": "so glad\t17,2\teb0\nnot bad\t2\teb1\nwhat now\t27\teb2\n"},
        [("so glad", "17", "2"), ("not bad", "2"), ("what now", "27")],
        {"columns": ["text", "labels", "id"], "label_column": "labels", "label_separator": ","},
        task="multi_label",
        names=("2", "17", "27"),
    ),
    Example(
        "Stack Exchange",
        "`<python><pandas>`",
        {"posts.csv": "Title,Tags\nhow to sort,<python><pandas>\nwhat is a list,<python>\n"},
        [("how to sort", "python", "pandas"), ("what is a list", "python")],
        {"text_column": "Title", "label_column": "Tags"},
        task="multi_label",
        read="as lists; tfpipe reports it",
    ),
]
