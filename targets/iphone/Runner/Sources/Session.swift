import CoreML
import Foundation

/// Nanoseconds of a clock that only goes forward.
func nowNs() -> UInt64 { clock_gettime_nsec_np(CLOCK_UPTIME_RAW) }

/// splitmix64 (Steele, Lea, Flood 2014).
struct Random {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }

    /// Nearly normal: twelve uniform values less six have mean 0 and variance 1.
    mutating func normal() -> Double {
        (0..<12).reduce(-6.0) { sum, _ in sum + Double(next() >> 11) / 9007199254740992.0 }
    }
}

/// One opened model with its input sets.
final class Session {
    private let model: MLModel
    private let outputs: [String]
    private var pool: [MLDictionaryFeatureProvider] = []

    /// Opens a compiled model; this is what loading takes.
    init(compiled: URL, units: MLComputeUnits, name: String) throws {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units
        do {
            model = try MLModel(contentsOf: compiled, configuration: configuration)
        } catch {
            throw Fault.model("\(name): \(oneLine(error))")
        }
        outputs = Array(model.modelDescription.outputDescriptionsByName.keys)
    }

    /// Fills `sets` input sets: normal values, or 0 and 1 for integers, which are valid wherever an index is meant.
    func fill(sets: Int, seed: UInt64) throws {
        var random = Random(state: seed)
        let inputs = model.modelDescription.inputDescriptionsByName.sorted { $0.key < $1.key }
        for _ in 0..<max(1, sets) {
            var values: [String: MLFeatureValue] = [:]
            for (name, description) in inputs {
                guard let constraint = description.multiArrayConstraint else {
                    throw Fault.model("input '\(name)' is no array: only arrays are measured")
                }
                let array = try MLMultiArray(shape: constraint.shape, dataType: constraint.dataType)
                for i in 0..<array.count {
                    array[i] = array.dataType == .int32
                        ? NSNumber(value: Int32(random.next() >> 63)) : NSNumber(value: random.normal())
                }
                values[name] = MLFeatureValue(multiArray: array)
            }
            pool.append(try MLDictionaryFeatureProvider(dictionary: values))
        }
    }

    /// One inference as an application sees it: inputs handed in, computed, outputs handed out.
    func run(_ set: Int) throws {
        let found = try model.prediction(from: pool[set % pool.count])
        for name in outputs {
            _ = found.featureValue(for: name)?.multiArrayValue?.dataPointer.load(as: UInt8.self)
        }
    }
}

func oneLine(_ error: Error) -> String {
    (error as? Fault)?.text ?? error.localizedDescription.split(whereSeparator: \.isNewline).joined(separator: " ")
}
