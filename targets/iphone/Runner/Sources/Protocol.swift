import CoreML
import Foundation

/// The app's version: edgefit refuses to believe one that it does not know.
let runnerVersion = "1"

/// Appends records to the samples, one JSON object a line.
final class Records {
    private let handle: FileHandle
    private(set) var trials = 0

    init(_ file: URL) throws {
        guard FileManager.default.createFile(atPath: file.path, contents: nil),
              let handle = try? FileHandle(forWritingTo: file) else {
            throw Fault.output("cannot write \(file.lastPathComponent)")
        }
        self.handle = handle
    }

    func write(_ record: [String: Any], counted: Bool = true) throws {
        do {
            try handle.write(contentsOf: JSONSerialization.data(withJSONObject: record) + Data("\n".utf8))
            if counted { trials += 1 }
        } catch {
            throw Fault.output("cannot write samples: \(oneLine(error))")
        }
    }

    func close() throws {
        try handle.synchronize()
        try handle.close()
    }
}

/// Carries out the job at `place`; the exit status. The result is the last thing that appears.
func carryOut(_ place: Place) -> Int32 {
    let start = nowNs()
    let beat = place.beat()
    var status = 0
    var text: String?
    var records: Records?
    do {
        guard let job = try? String(contentsOf: place.job, encoding: .utf8) else {
            throw Fault.job("there is no job \(place.key)")
        }
        let parsed = try Job(text: job)
        place.sweep(keep: Set(parsed.models.map(\.name)))
        let found = try Records(place.samples)
        records = found
        try measure(parsed, place, found)
    } catch {
        status = (error as? Fault)?.status ?? 4
        text = oneLine(error)
        try? records?.write(["type": "error", "message": text!, "status": status], counted: false)
    }
    do { try records?.close() } catch { (status, text) = (5, "cannot write samples: \(oneLine(error))") }
    beat.cancel()
    let result: [String: Any] = [
        "schema": "edgefit.result/1",
        "status": status == 0 ? "complete" : status >= 128 ? "interrupted" : "failed",
        "exit_code": status,
        "error": orNull(text),
        "records": records?.trials ?? 0,
        "seconds": Double(nowNs() - start) / 1e9,
    ]
    try? JSONSerialization.data(withJSONObject: result).write(to: place.result, options: .atomic)
    try? FileManager.default.removeItem(at: place.running)
    return Int32(status)
}

/// Gates, then trials of all models, their order rotating, then where their operators run.
private func measure(_ job: Job, _ place: Place, _ records: Records) throws {
    if job["deadline"] > 0 {
        DispatchQueue.global(qos: .utility).asyncAfter(deadline: .now() + job["deadline"]) {
            Stop.now("not done within its deadline")
            // An inference that never ends does not look: no result is then left, and edgefit says so.
            Thread.sleep(forTimeInterval: 30)
            exit(143)
        }
    }
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(place.key)
    try? FileManager.default.removeItem(at: folder)
    defer { try? FileManager.default.removeItem(at: folder) }
    let compiled = try job.models.map { try compile($0, place, folder) }
    defer { compiled.forEach { try? FileManager.default.removeItem(at: $0) } }
    try passGates(job)
    let begin: [String: Any] = [
        "type": "begin", "schema": "edgefit.samples/1", "runner": runnerVersion,
        "pid": ProcessInfo.processInfo.processIdentifier, "libraries": ["coreml": Conditions.system()],
        "affinity": NSNull(), "conditions": Conditions.record(units: job.unitsName),
    ]
    try records.write(begin, counted: false)
    for trial in 0..<job.int("trials") {
        for model in order(job.models.count, trial) {
            try autoreleasepool { try runTrial(job, trial, model, compiled[model], records) }
        }
    }
    if job["placement"] > 0 {
        for (model, file) in compiled.enumerated() {
            if let found = Placement.record(model: model, compiled: file, units: job.units) { try records.write(found) }
        }
    }
    let end: [String: Any] = [
        "type": "end", "records": records.trials, "conditions": Conditions.record(units: job.unitsName),
    ]
    try records.write(end, counted: false)
}

/// The package out of its parcel, compiled for this phone. Not part of loading: an app ships compiled models.
private func compile(_ model: JobModel, _ place: Place, _ folder: URL) throws -> URL {
    let package = folder.appendingPathComponent(model.name + ".mlpackage")
    try Parcel.unpack(place.file(model.name), sha256: model.sha256, into: package)
    do {
        return try MLModel.compileModel(at: package)
    } catch {
        throw Fault.model("\(model.name): \(oneLine(error))")
    }
}

/// Waits until the phone is cool, and refuses one whose battery is low.
private func passGates(_ job: Job) throws {
    if job["min_battery"] > 0, let level = Conditions.battery(), level < job["min_battery"] {
        throw Fault.condition("the battery has \(Int(level)) %, \(job.int("min_battery")) % are asked for")
    }
    let stop = nowNs() + UInt64(job["cool_seconds"] * 1e9)
    while Conditions.hot && job["cool_seconds"] > 0 {
        try Stop.check()
        if nowNs() > stop { throw Fault.condition("the phone stays hot: thermal state \(Conditions.thermal())") }
        Thread.sleep(forTimeInterval: 0.5)
    }
}

/// In which order trial number `trial` runs the models: rotated by one each time, every other reversed.
private func order(_ models: Int, _ trial: Int) -> [Int] {
    let turned = (0..<models).map { (trial / 2 + $0) % models }
    return trial % 2 == 0 ? turned : turned.reversed()
}
