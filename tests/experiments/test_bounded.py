from experiments.bounded import digits, outcome


def point(val_accuracy, latency_s, stand_alone=None):
    return {
        "val_accuracy": val_accuracy,
        "accuracy": val_accuracy - 0.01,
        "latency_s": latency_s,
        "again_s": 2 * latency_s,
        "stand_alone": stand_alone,
    }


def test_of_a_front_the_slowest_file_and_the_most_accurate_are_told():
    front = [point(0.5, 1e-5, 0.9), point(0.6, 2e-5, 0.8)]
    assert outcome({"front": front}) == "2 | 20.0, 40.0 µs | 59.0 %, 20.0 µs | 80.00 %"
    assert outcome({"front": front[:1]}) == "1 | 10.0, 20.0 µs | 49.0 %, 10.0 µs | 90.00 %"


def test_a_refused_run_is_told_with_its_reason():
    assert outcome({"refused": "nothing takes at most 1 µs"}).startswith("0 | refused: nothing takes at most 1 µs")


def test_architectures_are_written_as_the_benchmark_does():
    arch = {f"layer{i}": "mb6_k5" for i in range(1, 9)} | {"layer2": "identity", "layer8": "mb3_k3"}
    assert digits(arch) == "20222221"
