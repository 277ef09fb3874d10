import CryptoKit
import Foundation

/// What ends a job, with the exit status that the C runner has for it.
struct Fault: Error {
    let status: Int
    let text: String

    static func job(_ text: String) -> Fault { Fault(status: 2, text: text) }
    static func model(_ text: String) -> Fault { Fault(status: 4, text: text) }
    static func output(_ text: String) -> Fault { Fault(status: 5, text: text) }
    static func condition(_ text: String) -> Fault { Fault(status: 6, text: text) }
}

/// Why the measurement is to end before its time; set from other threads, looked at between two inferences.
enum Stop {
    private static let lock = NSLock()
    private static var text: String?

    static func now(_ why: String) {
        lock.lock()
        text = text ?? why
        lock.unlock()
    }

    static func check() throws {
        lock.lock()
        defer { lock.unlock() }
        if let text { throw Fault(status: 143, text: text) }
    }
}

/// Where the files of one job lie: all in the app's documents, all named edgefit-...
struct Place {
    let key: String
    private var documents: URL { FileManager.default.urls(for: .documentDirectory, in: .userDomainMask)[0] }

    static func isKey(_ text: String) -> Bool {
        !text.isEmpty && text.allSatisfy { $0.isHexDigit }
    }

    var job: URL { file("edgefit-\(key).job") }
    var samples: URL { file("edgefit-\(key).samples.ndjson") }
    var result: URL { file("edgefit-\(key).result.json") }
    var running: URL { file("edgefit-running") }

    func file(_ name: String) -> URL { documents.appendingPathComponent(name) }

    /// Removes what earlier jobs have left; `keep` are the parcels of this one.
    func sweep(keep: Set<String>) {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: documents.path)) ?? []
        for name in names where name.hasPrefix("edgefit-") && name != job.lastPathComponent && !keep.contains(name) {
            try? FileManager.default.removeItem(at: file(name))
        }
    }

    /// Says every two seconds that this job is at work, so that a dead one is told from a long one.
    func beat() -> DispatchSourceTimer {
        let timer = DispatchSource.makeTimerSource(queue: .global(qos: .utility))
        var count = 0
        timer.schedule(deadline: .now(), repeating: 2)
        timer.setEventHandler {
            count += 1
            try? Data("\(key) \(count)".utf8).write(to: running, options: .atomic)
        }
        timer.resume()
        return timer
    }
}

/// A package in one file, as edgefit sends it: "edgefit.parcel/1", a line "SIZE PATH" for each file, an empty line,
/// and the files one after the other.
enum Parcel {
    static func unpack(_ parcel: URL, sha256: String?, into folder: URL) throws {
        guard let data = try? Data(contentsOf: parcel, options: .mappedIfSafe) else {
            throw Fault.model("cannot read \(parcel.lastPathComponent)")
        }
        let found = SHA256.hash(data: data).map { String(format: "%02x", $0) }.joined()
        if let sha256, found != sha256 {
            throw Fault.model("\(parcel.lastPathComponent) is not the file that was sent: its hash differs")
        }
        guard let end = data.range(of: Data("\n\n".utf8)),
              let head = String(data: data[data.startIndex..<end.lowerBound], encoding: .utf8),
              head.hasPrefix("edgefit.parcel/1\n") else {
            throw Fault.model("\(parcel.lastPathComponent) is no parcel")
        }
        var at = end.upperBound
        for line in head.split(separator: "\n").dropFirst() {
            let parts = line.split(separator: " ", maxSplits: 1)
            guard parts.count == 2, let size = Int(parts[0]), size >= 0, at + size <= data.endIndex,
                  !parts[1].hasPrefix("/"), !parts[1].split(separator: "/").contains("..") else {
                throw Fault.model("\(parcel.lastPathComponent) is damaged")
            }
            let target = folder.appendingPathComponent(String(parts[1]))
            let parent = target.deletingLastPathComponent()
            try FileManager.default.createDirectory(at: parent, withIntermediateDirectories: true)
            try data.subdata(in: at..<at + size).write(to: target)
            at += size
        }
    }
}
