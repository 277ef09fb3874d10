import CoreML
import Foundation

/// On which device Core ML means to run each operator of a model; nil before iOS 17.4, which does not tell.
enum Placement {
    static func record(model: Int, compiled: URL, units: MLComputeUnits) -> [String: Any]? {
        guard #available(iOS 17.4, *) else { return nil }
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units
        let box = Box()
        let done = DispatchSemaphore(value: 0)
        Task.detached {
            box.plan = try? await MLComputePlan.load(contentsOf: compiled, configuration: configuration)
            done.signal()
        }
        done.wait()
        guard let plan = box.plan, case let .program(program) = plan.modelStructure else { return nil }
        var operators = 0
        var away: [[String: String]] = []
        func walk(_ block: MLModelStructure.Program.Block) {
            for operation in block.operations {
                // Constants have no device: they are no work.
                if let usage = plan.deviceUsage(for: operation) {
                    operators += 1
                    if let device = elsewhere(usage.preferred) {
                        let name = operation.outputs.first?.name ?? ""
                        away.append(["name": name, "kind": operation.operatorName, "device": device])
                    }
                }
                operation.blocks.forEach(walk)
            }
        }
        program.functions.values.forEach { walk($0.block) }
        return [
            "type": "placement", "model": model, "accelerator": "Neural Engine", "operators": operators, "away": away,
        ]
    }

    @available(iOS 17.4, *)
    private final class Box: @unchecked Sendable {
        var plan: MLComputePlan?
    }

    /// The device's name unless it is the Neural Engine.
    @available(iOS 17.4, *)
    private static func elsewhere(_ device: MLComputeDevice) -> String? {
        switch device {
        case .neuralEngine: return nil
        case .gpu: return "GPU"
        case .cpu: return "CPU"
        @unknown default: return "unknown"
        }
    }
}
