import Foundation

/// Timed runs of one window. At most `most` are kept: when full, every other one goes and only each `stride`-th is
/// added from then on, so that what is kept stays spread evenly over the window.
private struct Samples {
    static let most = 1 << 16
    var wall: [UInt64] = []
    var runs = 0
    var stride = 1
    var least = UInt64.max

    init() { wall.reserveCapacity(Samples.most) }

    mutating func keep(_ ns: UInt64) {
        least = min(least, ns)
        defer { runs += 1 }
        guard runs % stride == 0 else { return }
        if wall.count == Samples.most {
            wall = wall.enumerated().filter { $0.offset % 2 == 0 }.map(\.element)
            stride *= 2
        }
        wall.append(ns)
    }
}

/// One fresh session: load, first inference, warm-up, windows of timed runs.
func runTrial(_ job: Job, _ trial: Int, _ model: Int, _ compiled: URL, _ records: Records) throws {
    let before = Conditions.memory()
    var start = nowNs()
    let session = try Session(compiled: compiled, units: job.units, name: job.models[model].name)
    let loadNs = nowNs() - start
    try session.fill(sets: job.int("pool"), seed: UInt64(job["seed"]) &* 1_000_003 &+ UInt64(trial))
    start = nowNs()
    try session.run(0)
    let firstNs = nowNs() - start
    let (warmup, settled) = try warmUp(job, session)
    for window in 0..<job.int("windows") {
        var late = 0
        let begin = nowNs()
        let samples = try timed(job, session, &late)
        var record: [String: Any] = [
            "type": "trial", "trial": trial, "model": model, "window": window, "version": Conditions.system(),
            "runs": samples.runs, "stride": samples.stride, "late": late, "min_ns": samples.least,
            "window_ns": nowNs() - begin, "celsius": NSNull(), "mhz": NSNull(), "wall_ns": samples.wall,
            "thermal_state": Conditions.thermal(),
        ]
        if window == 0 {
            record["load_ns"] = loadNs
            record["first_ns"] = firstNs
            record["warmup"] = warmup
            record["settled"] = settled
            if let before, let after = Conditions.memory() { record["peak_bytes"] = after.peak - before.now }
        }
        try records.write(record)
    }
}

/// Rounds of warm-up until the median of one differs from the last one's by 2 % at most, or time is up.
private func warmUp(_ job: Job, _ session: Session) throws -> (runs: Int, settled: Bool) {
    let stop = nowNs() + UInt64(job["warmup_seconds"] * 1e9)
    let round = job.int("warmup") == 0 ? 0 : max(5, job.int("warmup"))
    var runs = 0
    var last: UInt64 = 0
    while round > 0 {
        var took: [UInt64] = []
        for _ in 0..<round {
            try Stop.check()
            let start = nowNs()
            try session.run(runs)
            let end = nowNs()
            took.append(end - start)
            runs += 1
            if end > stop { return (runs, false) }
        }
        let middle = took.sorted()[round / 2]
        if last > 0, abs(Double(middle) - Double(last)) <= 0.02 * Double(last) { return (runs, true) }
        last = middle
    }
    return (runs, false)
}

/// Timed runs of one window: at least `least`, until `seconds` are over or `most` are done.
private func timed(_ job: Job, _ session: Session, _ late: inout Int) throws -> Samples {
    var samples = Samples()
    let begin = nowNs()
    let stop = begin + UInt64(job["seconds"] * 1e9)
    let most = job.int("most")
    let least = job.int("least")
    let cadence = job["cadence_hz"]
    var k = 0
    while true {
        try Stop.check()
        if cadence > 0 {
            let due = begin + UInt64(Double(k) / cadence * 1e9)
            if nowNs() > due { late += 1 }
            while nowNs() < due { Thread.sleep(forTimeInterval: Double(due - min(due, nowNs())) / 1e9) }
        }
        let start = nowNs()
        try session.run(k)
        let end = nowNs()
        samples.keep(end - start)
        k += 1
        if (most > 0 && k >= most) || (end > stop && k >= least) { return samples }
    }
}
