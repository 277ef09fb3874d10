// Measures Core ML models on the phone it runs on, as a job file says. docs/runner.md describes jobs and records.
//
// Launched with one argument, KEY: reads Documents/edgefit-KEY.job, writes edgefit-KEY.samples.ndjson and, in one
// step at the very end, edgefit-KEY.result.json. Without that file nothing was measured.
import SwiftUI
import UIKit

@main
struct RunnerApp: App {
    @Environment(\.scenePhase) private var phase
    @StateObject private var screen = Screen()

    var body: some Scene {
        WindowGroup {
            Text(screen.text).padding().task { screen.begin() }
        }
        .onChange(of: phase) { _, now in
            // What runs in the background is throttled, then suspended: no measurement.
            if now == .background { Stop.now("the app left the foreground") }
        }
    }
}

/// What the phone shows; the measurement has a thread of its own.
final class Screen: ObservableObject {
    @Published var text = "Waiting for edgefit bench --device iphone"
    private var begun = false

    func begin() {
        guard !begun, let key = CommandLine.arguments.dropFirst().first, Place.isKey(key) else { return }
        begun = true
        text = "Measuring. Leave this app open."
        UIApplication.shared.isIdleTimerDisabled = true
        UIDevice.current.isBatteryMonitoringEnabled = true
        let thread = Thread {
            let status = carryOut(Place(key: key))
            exit(status)
        }
        thread.qualityOfService = .userInteractive
        thread.stackSize = 8 << 20
        thread.start()
    }
}
