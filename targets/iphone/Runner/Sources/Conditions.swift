import Foundation
import UIKit

func orNull(_ value: Any?) -> Any { value ?? NSNull() }

/// The state of the phone. What iOS does not tell is null: there are no clocks, governors or temperatures.
enum Conditions {
    static func record(units: String) -> [String: Any] {
        let none = NSNull()
        let device = UIDevice.current
        let known = device.batteryState != .unknown
        return [
            "device": orNull(model()),
            "soc": none,
            "os": system(),
            "kernel": orNull(text("kern.osrelease")),
            "machine": "arm64",
            "cpu": none,
            "cores": ProcessInfo.processInfo.activeProcessorCount,
            "affinity": none,
            "governor": none,
            "frequency_mhz": none,
            "max_mhz": none,
            "boost": none,
            "load": none,
            "temperatures": none,
            "battery_percent": orNull(battery()),
            "charging": orNull(known ? device.batteryState != .unplugged : nil),
            "thermal_state": thermal(),
            "low_power_mode": ProcessInfo.processInfo.isLowPowerModeEnabled,
            "compute_units": units,
        ]
    }

    static func system() -> String { "\(UIDevice.current.systemName) \(UIDevice.current.systemVersion)" }

    static func battery() -> Double? {
        let level = UIDevice.current.batteryLevel
        return level < 0 ? nil : Double(level) * 100
    }

    static func thermal() -> String {
        switch ProcessInfo.processInfo.thermalState {
        case .nominal: return "nominal"
        case .fair: return "fair"
        case .serious: return "serious"
        case .critical: return "critical"
        @unknown default: return "unknown"
        }
    }

    static var hot: Bool { ["serious", "critical"].contains(thermal()) }

    /// "iPhone14,2"
    private static func model() -> String? { text("hw.machine") }

    private static func text(_ name: String) -> String? {
        var size = 0
        guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 0 else { return nil }
        var bytes = [CChar](repeating: 0, count: size)
        return sysctlbyname(name, &bytes, &size, nil, 0) == 0 ? String(cString: bytes) : nil
    }

    /// Bytes that count against the app's limit: now, and at most so far; nil where the kernel does not tell.
    static func memory() -> (now: Int64, peak: Int64)? {
        var info = task_vm_info_data_t()
        var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size)
        let status = withUnsafeMutablePointer(to: &info) {
            $0.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
                task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
            }
        }
        return status == KERN_SUCCESS ? (Int64(info.phys_footprint), info.ledger_phys_footprint_peak) : nil
    }
}
