use mainstay::LiftLayer;
use mainstay::telemetry::TelemetryLayer;
use tower::{Layer, service_fn};

fn main() {
    let inner = service_fn(|_: u32| async { Ok::<_, std::io::Error>(()) });
    let service = TelemetryLayer::new("ui").layer(LiftLayer::new().layer(inner));
    let _ = service.oneshot(1);
}
