"""What a daemon that was killed left, made by hand: much of it, in every place, under any name."""


def make_tree(path):
    (path / "fs" / "deep" / "er").mkdir(parents=True)
    for number in range(5):
        (path / "fs" / "deep" / f"file{number}").write_text("litter")
    (path / "layer.tar").write_text("litter")


def test_litter_is_removed_while_layers_are_pulled(make_victim, driver):
    """Also under names that the next daemon might take, and under those of layers to be pulled."""
    victim = make_victim(driver)
    victim.pull("b")
    victim.kill()
    data_root = victim.daemon.data_root
    hexadecimals = [diff_id.removeprefix("sha256:") for diff_id in victim.shelf.layers]
    for number in range(20):
        make_tree(data_root / "tmp" / f"litter.{number}")
        for name in hexadecimals:
            make_tree(data_root / "tmp" / f"{name}.{number}")
    for name in hexadecimals:
        if not (data_root / "layers" / name).exists():
            make_tree(data_root / "layers" / name)
        (data_root / "mnt" / name).mkdir(exist_ok=True)
    for number in range(10):
        make_tree(data_root / "layers" / (f"{number}" * 64))
        (data_root / "mnt" / (f"{number}" * 64)).mkdir()
    (data_root / "layers" / "a-file").write_text("litter")
    victim.start()
    for letter in "abc":
        victim.pull(letter)
    victim.check()
    victim.check_listed("abc")
