use mainstay::telemetry::TelemetryLayer;
use tower::{Layer, service_fn};

fn main() {
    let inner = service_fn(|_: u32| async { Ok::<_, std::io::Error>(()) });
    let mut service = TelemetryLayer::new("ui").layer(inner);
    let _ = service.ready();
}
