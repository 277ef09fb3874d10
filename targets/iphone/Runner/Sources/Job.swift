import CoreML
import Foundation

/// One model of a job: a parcel in the app's documents.
struct JobModel {
    let sha256: String?
    let name: String
}

/// The job file: lines of `key value`, as the C runner reads them. What a phone cannot do is refused.
struct Job {
    var models: [JobModel] = []
    var units = MLComputeUnits.all
    var unitsName = "all"
    private var numbers: [String: Double] = [
        "threads": 1, "core": -1, "trials": 1, "windows": 1, "turns": 1, "least": 5, "most": 0, "seconds": 1, "warmup": 20,
        "warmup_seconds": 1, "seed": 0, "pool": 4, "together": 0, "marks": 0, "placement": 0, "cadence_hz": 0,
        "max_celsius": 0, "cool_seconds": 0, "deadline": 0, "min_battery": 0,
    ]
    private static let unitsByName: [String: MLComputeUnits] = [
        "all": .all, "cpu_only": .cpuOnly, "cpu_and_gpu": .cpuAndGPU, "cpu_and_ne": .cpuAndNeuralEngine,
    ]

    init(text: String) throws {
        let lines = text.split(separator: "\n")
        guard lines.first == "edgefit.job/1" else { throw Fault.job("the job does not begin with edgefit.job/1") }
        for line in lines.dropFirst() {
            let parts = line.split(separator: " ", maxSplits: 1).map(String.init)
            guard parts.count == 2 else { throw Fault.job("job: '\(line)' has no value") }
            try set(parts[0], parts[1])
        }
        if models.isEmpty { throw Fault.job("job: no model") }
        for key in ["together", "marks", "max_celsius"] where self[key] > 0 {
            throw Fault.job("job: a phone cannot do '\(key)'")
        }
        if self["turns"] > 1 { throw Fault.job("job: a phone opens models one by one") }
    }

    subscript(key: String) -> Double { numbers[key]! }

    func int(_ key: String) -> Int { Int(self[key]) }

    private mutating func set(_ key: String, _ value: String) throws {
        switch key {
        case "model":
            let words = value.split(separator: " ", maxSplits: 2).map(String.init)
            guard words.count == 3, words[0] == "coreml", !words[2].contains("/") else {
                throw Fault.job("job: a model needs coreml SHA256 NAME")
            }
            models.append(JobModel(sha256: words[1] == "-" ? nil : words[1], name: words[2]))
        case "units":
            guard let found = Job.unitsByName[value] else { throw Fault.job("job: unknown compute units '\(value)'") }
            (units, unitsName) = (found, value)
        default:
            guard numbers[key] != nil else { throw Fault.job("job: unknown key '\(key)'") }
            guard let number = Double(value), number.isFinite, number >= (key == "core" ? -1 : 0) else {
                throw Fault.job("job: '\(value)' is not a value of \(key)")
            }
            numbers[key] = number
        }
    }
}
