def test_tiny(tiny_run):
    print(tiny_run)
