//! HTTP adapters: in memory, and over loopback with real servers and clients.
#![cfg(feature = "http")]

use std::time::Duration;

#[cfg(feature = "health")]
use http::Method;
use http::{Request, Response, StatusCode};
use mainstay::context::{self, Context, Criticality};
use mainstay::http::{
    ATTEMPT, AcceptContextConfig, AcceptContextLayer, CRITICALITY, ContextHeaders, DEADLINE_MS, DEPENDENCY_FAILED,
    GAVE_UP, GRPC_TIMEOUT, PropagateLayer, mark_dependency_failed,
};
use mainstay::{BoxError, Classify, Health, HttpClassifier, Outcome, Rejectable, Rejected, RetryHint, judge};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

fn response(status: u16) -> Response<()> {
    Response::builder().status(status).body(()).unwrap()
}

fn outcome(response: &Response<()>) -> Outcome {
    HttpClassifier::new().classify(Ok::<_, &BoxError>(response))
}

// === the classifier ===

#[test]
fn every_status_is_in_the_table() {
    for status in 100..=999 {
        let expected = match status {
            100..=399 => Outcome::Success,
            408 | 425 | 500 | 502 | 503 | 504 => Outcome::Transient,
            429 => Outcome::Throttled { retry_after: None },
            400..=499 => Outcome::Refused,
            _ => Outcome::Permanent,
        };
        assert_eq!(outcome(&response(status)), expected, "{status}");
    }
}

/// Scenario 11, where 505 is transient to others: a server that does not speak our version will not learn it by the next try.
#[test]
fn what_may_help_to_try_again() {
    for (status, retried) in [
        (200, false),
        (400, false),
        (413, false),
        (408, true),
        (429, true),
        (500, true),
        (501, false),
        (502, true),
        (503, true),
        (504, true),
        (505, false),
    ] {
        assert_eq!(outcome(&response(status)).retry() != RetryHint::No, retried, "{status}");
    }
}

#[test]
fn a_server_that_says_when_to_come_back_is_throttled() {
    let with = |status: u16, after: &str| {
        let mut response = response(status);
        response.headers_mut().insert("retry-after", after.parse().unwrap());
        outcome(&response)
    };
    let two = Duration::from_secs(2);
    assert_eq!(with(429, "2"), Outcome::throttled(two));
    assert_eq!(with(503, "2"), Outcome::throttled(two));
    assert_eq!(with(503, "2").health(), Health::NoEvidence);
    assert_eq!(with(429, "soon"), Outcome::Throttled { retry_after: None });
    assert_eq!(with(503, "soon"), Outcome::Transient, "what cannot be read is not there");
    assert_eq!(with(500, "2"), Outcome::Transient);
    assert_eq!(with(301, "2"), Outcome::Success);
}

#[test]
fn a_marked_failure_is_the_dependencys_and_not_the_servers() {
    for status in [500, 501, 502, 503, 504] {
        let mut response = response(status);
        response.headers_mut().insert("retry-after", "2".parse().unwrap());
        mark_dependency_failed(&mut response);
        assert_eq!(outcome(&response), Outcome::DependencyFailed, "{status}");
    }
    let mut ok = response(200);
    mark_dependency_failed(&mut ok);
    assert_eq!(outcome(&ok), Outcome::Success, "a mark means something on failures only");
    let mut refused = response(404);
    mark_dependency_failed(&mut refused);
    assert_eq!(outcome(&refused), Outcome::Refused);

    let mut tired = response(503);
    tired.headers_mut().insert(GAVE_UP, "1".parse().unwrap());
    assert_eq!(outcome(&tired), Outcome::DependencyFailed);
    assert_eq!(outcome(&tired).retry(), RetryHint::No, "it was retried already");
}

#[test]
fn a_status_can_be_overridden_and_the_last_setting_wins() {
    let classifier = HttpClassifier::new()
        .on_status(StatusCode::NOT_FOUND, Outcome::Permanent)
        .on_status(StatusCode::OK, Outcome::Ignored)
        .on_status(StatusCode::NOT_FOUND, Outcome::Transient)
        .on_status(StatusCode::SERVICE_UNAVAILABLE, Outcome::Permanent)
        .on_statuses([520, 521], Outcome::Throttled { retry_after: None })
        .unwrap();
    let of = |mut response: Response<()>| {
        mark_dependency_failed(&mut response);
        response.headers_mut().insert("retry-after", "3".parse().unwrap());
        classifier.classify(Ok::<_, &BoxError>(&response))
    };
    assert_eq!(of(response(404)), Outcome::Transient);
    assert_eq!(of(response(200)), Outcome::Ignored);
    assert_eq!(of(response(503)), Outcome::Permanent, "whatever its headers say");
    assert_eq!(of(response(521)), Outcome::throttled(Duration::from_secs(3)));
    assert_eq!(of(response(201)), Outcome::Success);
    let error = HttpClassifier::new().on_statuses([200, 1_000], Outcome::Ignored).unwrap_err();
    assert_eq!(error.to_string(), "invalid `status` = 1000: must be from 100 to 999");
}

#[test]
fn no_response_is_transient_and_a_refusal_of_ours_is_seen_first() {
    let classifier = HttpClassifier::new();
    let error: BoxError = "connection reset".into();
    assert_eq!(judge(&classifier, Err::<&Response<()>, _>(&error)), Outcome::Transient);
    let refusal = BoxError::from_rejected(Rejected::shed());
    assert_eq!(judge(&classifier.on_error(Outcome::Permanent), Err::<&Response<()>, _>(&refusal)), Outcome::Ignored);
}

#[test]
fn statuses_can_be_set_in_any_order_and_the_last_setting_of_each_holds() {
    let numbers = [599, 504, 503, 500, 404, 302, 200];
    let orders: [Vec<u16>; 3] = [numbers.to_vec(), numbers.iter().rev().copied().collect(), {
        let mut mixed = numbers.to_vec();
        mixed.swap(0, 3);
        mixed.rotate_left(2);
        mixed
    }];
    for order in orders {
        let mut classifier = HttpClassifier::new();
        for (index, status) in order.iter().chain(&order).enumerate() {
            let outcome = if index < order.len() { Outcome::Permanent } else { Outcome::DependencyFailed };
            classifier = classifier.on_status(StatusCode::from_u16(*status).unwrap(), outcome);
        }
        for status in 200..600 {
            let response = Response::builder().status(status).body(()).unwrap();
            let outcome = |classifier: &HttpClassifier| classifier.classify(Ok::<_, &BoxError>(&response));
            let expected = match numbers.contains(&status) {
                true => Outcome::DependencyFailed,
                false => outcome(&HttpClassifier::new()),
            };
            assert_eq!(outcome(&classifier), expected, "{status} of {order:?}");
        }
    }
}

/// Rules for errors leave everything else of a classifier as it was, and the other way round.
#[test]
fn a_classifier_with_rules_for_errors_judges_answers_alike() {
    let plain = HttpClassifier::new().on_status(StatusCode::NOT_FOUND, Outcome::Permanent).on_error(Outcome::Ignored);
    let ruled = plain.clone().not_sent_if(|_: &std::io::Error| true);
    let before = HttpClassifier::new()
        .not_sent_if(|_: &std::io::Error| true)
        .on_status(StatusCode::NOT_FOUND, Outcome::Permanent)
        .on_error(Outcome::Ignored);
    for status in 100..600 {
        let response = Response::builder().status(status).header("retry-after", "2").body(()).unwrap();
        let result = Ok::<_, &BoxError>(&response);
        let expected = (plain.classify(result), plain.depends_on_caller(result));
        assert_eq!((ruled.classify(result), ruled.depends_on_caller(result)), expected, "{status}");
        assert_eq!((before.classify(result), before.depends_on_caller(result)), expected, "{status}");
        assert_eq!(expected.1, !matches!(status, 404 | 410), "{status}");
    }
    let error: BoxError = "reset".into();
    assert_eq!(ruled.classify(Err::<&Response<()>, _>(&error)), Outcome::Ignored);
    assert_eq!(before.classify(Err::<&Response<()>, _>(&error)), Outcome::Ignored);
    assert!(ruled.depends_on_caller(Err::<&Response<()>, _>(&error)));
}

// === the context ===

/// Answers with the headers it got.
fn echo() -> impl Service<
    Request<()>,
    Response = Response<http::HeaderMap>,
    Error = BoxError,
    Future = std::future::Ready<Result<Response<http::HeaderMap>, BoxError>>,
> + Clone {
    service_fn(|request: Request<()>| std::future::ready(Ok(Response::new(request.headers().clone()))))
}

/// Answers with the context it runs under, read in its future.
fn server(
    config: AcceptContextConfig,
) -> impl Service<Request<()>, Response = Response<Context>, Error = BoxError> + Clone {
    ServiceBuilder::new().layer(AcceptContextLayer::new(config).unwrap()).service(service_fn(|_: Request<()>| async {
        tokio::task::yield_now().await;
        Ok::<_, BoxError>(Response::new(context::current()))
    }))
}

#[tokio::test(start_paused = true)]
async fn the_context_travels_from_process_to_process() {
    let sent = Context::new()
        .with_deadline(Instant::now() + Duration::from_millis(1_500))
        .with_attempt(3)
        .with_criticality(Criticality::Sheddable);
    let mut client = PropagateLayer::new().layer(server(AcceptContextConfig::default()));
    let call = sent.enter(|| client.call(Request::new(())));
    assert_eq!(call.await.unwrap().into_body(), sent);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_set_is_not_sent_and_what_a_stranger_sent_is_not_passed_on() {
    let mut client = PropagateLayer::new().layer(echo());
    let request = || {
        Request::get("/")
            .header(DEADLINE_MS, "1")
            .header(DEADLINE_MS, "2")
            .header(ATTEMPT, "7")
            .header(CRITICALITY, "critical_plus")
            .header("x-other", "stays")
            .body(())
            .unwrap()
    };
    let headers = client.call(request()).await.unwrap().into_body();
    assert_eq!(headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["x-other"]);

    let context = Context::new().with_deadline(Instant::now() + Duration::from_secs(2));
    let headers = context.enter(|| client.call(request())).await.unwrap().into_body();
    assert_eq!(headers.get_all(DEADLINE_MS).iter().collect::<Vec<_>>(), ["2000"]);
    assert_eq!(headers.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_with_less_than_a_millisecond_left_is_not_sent() {
    let mut client = PropagateLayer::new().layer(echo());
    let context = Context::new().with_deadline(Instant::now() + Duration::from_millis(2));
    let mut sent = || futures_util::FutureExt::now_or_never(context.enter(|| client.call(Request::new(())))).unwrap();
    assert_eq!(sent().unwrap().into_body()[DEADLINE_MS], "2");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(sent().unwrap().into_body()[DEADLINE_MS], "1");
    for _ in 0..2 {
        tokio::time::advance(Duration::from_micros(1)).await;
        assert_eq!(sent().unwrap_err().as_rejected(), Some(&Rejected::DeadlineExceeded { sent: false }));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_accepting_layer_nothing_is_believed() {
    let plain = service_fn(|_: Request<()>| async { Ok::<_, BoxError>(context::current()) });
    let request = Request::get("/").header(DEADLINE_MS, "5").header(ATTEMPT, "9").body(()).unwrap();
    assert_eq!(plain.oneshot(request).await.unwrap(), Context::new());
}

#[tokio::test(start_paused = true)]
async fn a_server_inside_of_another_call_does_not_see_that_calls_context() {
    let outer = Context::new().with_deadline(Instant::now() + Duration::from_secs(1)).with_attempt(4);
    let call = outer.scope(server(AcceptContextConfig::default()).oneshot(Request::new(())));
    assert_eq!(call.await.unwrap().into_body(), Context::new());
}

#[tokio::test(start_paused = true)]
async fn the_handlers_call_and_drop_run_within_the_context_too() {
    struct Expect;
    impl Drop for Expect {
        fn drop(&mut self) {
            assert_eq!(context::current().attempt(), 5);
        }
    }
    let mut server = AcceptContextLayer::default().layer(service_fn(|_: Request<()>| {
        assert_eq!(context::current().attempt(), 5);
        let expect = Expect;
        async move {
            let _expect = expect;
            std::future::pending::<Result<Response<()>, BoxError>>().await
        }
    }));
    let request = Request::get("/").header(ATTEMPT, "5").body(()).unwrap();
    let mut call = tokio_test::task::spawn(server.call(request));
    tokio_test::assert_pending!(call.poll());
    drop(call);
    assert_eq!(context::current(), Context::new());
}

#[tokio::test(start_paused = true)]
async fn the_names_can_be_chosen_in_both_directions_and_the_others_are_then_nobodys() {
    let names = |name| http::HeaderName::from_static(name);
    let headers =
        ContextHeaders::new().deadline_ms(names("x-left")).attempt(names("x-try")).criticality(names("x-crit"));
    let sent = Context::new()
        .with_deadline(Instant::now() + Duration::from_millis(1_500))
        .with_attempt(3)
        .with_criticality(Criticality::Sheddable);
    let layer = PropagateLayer::new().headers(headers.clone()).unwrap();
    let request = Request::get("/").header(DEADLINE_MS, "7").header("x-try", "99").body(()).unwrap();
    let echoed = sent.enter(|| layer.layer(echo()).call(request)).await.unwrap().into_body();
    assert_eq!(
        (&echoed["x-left"], &echoed["x-try"], &echoed["x-crit"]),
        (&"1500".parse().unwrap(), &"3".parse().unwrap(), &"sheddable".parse().unwrap())
    );
    assert_eq!(echoed[DEADLINE_MS], "7", "just a header");

    let server = AcceptContextLayer::default()
        .headers(headers)
        .unwrap()
        .layer(service_fn(|_: Request<()>| async { Ok::<_, BoxError>(Response::new(context::current())) }));
    let mut request = Request::new(());
    *request.headers_mut() = echoed;
    assert_eq!(server.oneshot(request).await.unwrap().into_body(), sent);
}

#[test]
fn a_name_that_is_used_twice_is_refused_and_named() {
    let twice = ContextHeaders::new().attempt(DEADLINE_MS);
    for error in [
        PropagateLayer::new().headers(twice.clone()).unwrap_err(),
        AcceptContextLayer::default().headers(twice).unwrap_err(),
    ] {
        assert_eq!((error.field(), error.value()), ("attempt", "\"x-mainstay-deadline-ms\""));
    }
    for name in [GAVE_UP, DEPENDENCY_FAILED, GRPC_TIMEOUT] {
        assert_eq!(ContextHeaders::new().deadline_ms(name).validate().unwrap_err().field(), "deadline_ms");
    }
}

#[tokio::test(start_paused = true)]
async fn grpc_timeout_is_written_when_asked_for_and_the_nearer_of_two_limits_stays() {
    let plain = PropagateLayer::new();
    let asked = PropagateLayer::new().headers(ContextHeaders::new().grpc_timeout(true)).unwrap();
    let left = Context::new().with_deadline(Instant::now() + Duration::from_secs(2));
    let sent = |layer: &PropagateLayer, context: Context, own: Option<&str>| {
        let mut request = Request::new(());
        if let Some(own) = own {
            request.headers_mut().insert(GRPC_TIMEOUT, own.parse().unwrap());
        }
        let call = context.enter(|| layer.layer(echo()).call(request));
        let headers = futures_util::FutureExt::now_or_never(call).unwrap().unwrap().into_body();
        headers.get(GRPC_TIMEOUT).map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(sent(&plain, left, None), None);
    assert_eq!(sent(&plain, left, Some("9S")).as_deref(), Some("9S"));
    assert_eq!(sent(&asked, left, None).as_deref(), Some("2000000u"));
    assert_eq!(sent(&asked, left, Some("9S")).as_deref(), Some("2000000u"));
    assert_eq!(sent(&asked, left, Some("1S")).as_deref(), Some("1S"));
    assert_eq!(sent(&asked, left, Some("soon")).as_deref(), Some("2000000u"));
    assert_eq!(sent(&asked, Context::new(), Some("1S")).as_deref(), Some("1S"));
}

#[tokio::test(start_paused = true)]
async fn grpc_timeout_is_believed_when_asked_for_and_clamped_like_the_other() {
    let left = |grpc: bool, headers: &[(http::HeaderName, &str)]| {
        let layer = AcceptContextLayer::default().headers(ContextHeaders::new().grpc_timeout(grpc)).unwrap();
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let mut server = layer.layer(service_fn(|_| {
            std::future::ready(Ok::<_, BoxError>(Response::new(context::current().remaining(Instant::now()))))
        }));
        futures_util::FutureExt::now_or_never(server.call(request)).unwrap().unwrap().into_body()
    };
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(left(false, &[(GRPC_TIMEOUT, "3S")]), None);
    assert_eq!(left(true, &[(GRPC_TIMEOUT, "3S")]), seconds(3));
    assert_eq!(left(true, &[(GRPC_TIMEOUT, "99999999H")]), seconds(60));
    assert_eq!(left(true, &[(GRPC_TIMEOUT, "3s")]), None);
    assert_eq!(left(true, &[(GRPC_TIMEOUT, "3S"), (DEADLINE_MS, "2000")]), seconds(2));
    assert_eq!(left(true, &[(GRPC_TIMEOUT, "1S"), (DEADLINE_MS, "2000")]), seconds(1));
    assert_eq!(left(true, &[(GRPC_TIMEOUT, "never"), (DEADLINE_MS, "2000")]), seconds(2));
}

/// Timeouts: what nobody waits for any more is not started, across processes too.
#[cfg(feature = "timeout")]
#[tokio::test(start_paused = true)]
async fn work_whose_deadline_passed_on_the_way_is_refused_before_it_starts() {
    let (handler, mut handle) = tower_test::mock::pair::<Request<()>, Response<()>>();
    handle.allow(1);
    let server = ServiceBuilder::new()
        .layer(AcceptContextLayer::default().headers(ContextHeaders::new().grpc_timeout(true)).unwrap())
        .layer(mainstay::TimeoutLayer::attempt("server", Duration::from_secs(1)).unwrap())
        .service(handler);
    for (name, value) in [(DEADLINE_MS, "0"), (GRPC_TIMEOUT, "0n")] {
        let request = Request::get("/").header(name, value).body(()).unwrap();
        let error = server.clone().oneshot(request).await.unwrap_err();
        assert_eq!(error.as_rejected(), Some(&Rejected::DeadlineExceeded { sent: false }));
    }
    tokio_test::assert_pending!(tokio_test::task::spawn(handle.next_request()).poll());
}

#[tokio::test]
async fn readiness_is_the_inner_services() {
    let (inner, mut handle) = tower_test::mock::pair::<Request<()>, Response<()>>();
    let mut service =
        ServiceBuilder::new().layer(AcceptContextLayer::default()).layer(PropagateLayer::new()).service(inner);
    handle.allow(0);
    tokio_test::task::spawn(()).enter(|cx, _| assert!(service.poll_ready(cx).is_pending()));
    handle.allow(1);
    assert!(service.ready().await.is_ok());
}

#[test]
fn futures_are_send_when_the_inner_one_is() {
    fn check<T: Send>(_: T) {}
    check(AcceptContextLayer::default().layer(echo()).call(Request::new(())));
}

#[cfg(feature = "serde")]
#[test]
fn bounds_are_read_from_a_file() {
    let text = "max_deadline = \"5s\"\ndefault_deadline = \"1s\"\nmax_criticality = \"sheddable_plus\"";
    let config: AcceptContextConfig = toml::from_str(text).unwrap();
    assert_eq!((config.max_deadline, config.default_deadline), (Duration::from_secs(5), Some(Duration::from_secs(1))));
    assert_eq!(config.max_criticality, Criticality::SheddablePlus);
    assert_eq!(toml::from_str::<AcceptContextConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
    assert!(toml::from_str::<AcceptContextConfig>("max_criticality = \"divine\"").is_err());
    assert!(toml::from_str::<AcceptContextConfig>("max_dedline = \"5s\"").is_err());
}

// === over loopback ===

type Client = hyper_util::client::legacy::Client<
    hyper_util::client::legacy::connect::HttpConnector,
    http_body_util::Empty<bytes::Bytes>,
>;

fn client() -> Client {
    hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http()
}

async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn get(url: &str) -> Request<http_body_util::Empty<bytes::Bytes>> {
    Request::get(url).body(http_body_util::Empty::new()).unwrap()
}

#[tokio::test]
async fn the_context_and_the_marks_travel_over_a_real_connection() {
    let handler = || async {
        let context = context::current();
        let left = context.remaining(Instant::now()).unwrap();
        assert!(left <= Duration::from_secs(5), "clamped");
        let mut response =
            Response::new(axum::body::Body::from(format!("{} {}", context.attempt(), context.criticality())));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        mark_dependency_failed(&mut response);
        response
    };
    let mut config = AcceptContextConfig::default();
    config.max_deadline = Duration::from_secs(5);
    let layer = AcceptContextLayer::new(config).unwrap();
    let url = serve(axum::Router::new().route("/", axum::routing::get(handler)).layer(layer)).await;

    let client = PropagateLayer::new().layer(client().map_err(BoxError::from));
    let context = Context::new()
        .with_deadline(Instant::now() + Duration::from_secs(3_600))
        .with_attempt(2)
        .with_criticality(Criticality::SheddablePlus);
    let response = context.scope(client.oneshot(get(&url))).await.unwrap();
    assert!(response.headers().contains_key(DEPENDENCY_FAILED));
    assert_eq!(HttpClassifier::new().classify(Ok::<_, &BoxError>(&response)), Outcome::DependencyFailed);
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert_eq!(body, "2 sheddable_plus");
}

#[cfg(feature = "health")]
mod pages {
    use http_body_util::BodyExt;
    use mainstay::HealthStatus;
    use mainstay::health::{HealthReport, HttpProbe, Monitor, Probe, Role, ServiceProbe};
    use mainstay::http::HealthPages;

    use super::*;

    async fn body(response: Response<http_body_util::Full<bytes::Bytes>>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    /// Scenario 7, as an orchestrator sees it.
    #[tokio::test]
    async fn pages_answer_200_or_503_with_json_that_nobody_stores() {
        let report = HealthReport::new("app");
        let pages = HealthPages::new(report.clone());
        let statuses = |pages: &HealthPages| {
            ["/startupz", "/livez", "/readyz"].map(|path| pages.answer(&Method::GET, path).status().as_u16())
        };
        assert_eq!(statuses(&pages), [503, 200, 503]);
        report.mark_started();
        assert_eq!(statuses(&pages), [200, 200, 200]);
        let worker = report.add("worker", Role::Vital).unwrap();
        worker.unhealthy("stuck");
        assert_eq!(statuses(&pages), [200, 503, 503]);
        worker.healthy();
        report.begin_shutdown();
        assert_eq!(statuses(&pages), [200, 200, 503]);

        let page = pages.answer(&Method::GET, "/livez");
        assert_eq!(page.headers()["cache-control"], "no-store");
        assert_eq!(page.headers()["content-type"], "application/json");
        let json: serde_json::Value = serde_json::from_str(&body(page).await).unwrap();
        assert_eq!(json["parts"][0]["name"], "worker");
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused_and_details_can_be_left_out() {
        let pages = HealthPages::new(HealthReport::new("secret"));
        assert_eq!(pages.answer(&Method::GET, "/").status(), 404);
        assert_eq!(pages.answer(&Method::GET, "/livez/").status(), 404);
        let post = pages.answer(&Method::POST, "/livez");
        assert_eq!((post.status().as_u16(), post.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD"));
        let head = pages.answer(&Method::HEAD, "/livez");
        assert_eq!(head.status(), 200);
        let bare = pages.without_details().answer(&Method::GET, "/readyz");
        assert_eq!((bare.status().as_u16(), body(bare).await.as_str()), (503, r#"{"status":"fail"}"#));
    }

    #[tokio::test]
    async fn the_head_of_a_page_is_all_that_a_head_request_gets() {
        let pages = HealthPages::new(HealthReport::new("app"));
        let length = body(pages.answer(&Method::GET, "/startupz")).await.len();
        let url = serve(axum::Router::new().fallback_service(pages)).await;
        let request = Request::head(format!("{url}/startupz")).body(http_body_util::Empty::new()).unwrap();
        let response = client().oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["content-length"]), (503, &length.into()));
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }

    /// The whole way: a report, its page on a real server, the built-in probe and a probe over a real client, a monitor.
    #[tokio::test]
    async fn a_monitor_sees_an_application_go_unready_through_its_page() {
        let report = HealthReport::new("app");
        report.mark_started();
        let pages = HealthPages::new(report.clone());
        let url = serve(axum::Router::new().route_service("/readyz", pages)).await;
        let page = format!("{url}/readyz");

        let plain = HttpProbe::new(page.clone()).unwrap();
        let through_client = ServiceProbe::new(client(), move || get(&page)).classify(HttpClassifier::new());
        assert!(plain.check().await.is_ok());
        assert!(through_client.check().await.is_ok());

        let monitor = Monitor::builder("apps").timeout(Duration::from_secs(60)).build().unwrap();
        monitor.add("plain", plain);
        monitor.add("client", through_client);
        let mut changes = monitor.subscribe();
        monitor.start().unwrap();
        for _ in 0..2 {
            assert_eq!(changes.changed().await.unwrap().status, HealthStatus::Healthy);
        }
        report.begin_shutdown();
        monitor.check_now(&"plain");
        monitor.check_now(&"client");
        for _ in 0..2 {
            assert_eq!(changes.changed().await.unwrap().status, HealthStatus::Unhealthy, "at once: it said so itself");
        }
    }
}

/// retry.md R10, with the preset.
#[cfg(feature = "retry")]
#[tokio::test(start_paused = true)]
async fn a_post_without_a_mark_is_not_sent_twice_but_is_retried_where_it_was_not_sent() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use http::{Request, Response};
    use mainstay::{BoxError, Rejectable, Rejected, RetryLayer};
    use tower::{Layer, service_fn};

    let send = |request: Request<&'static str>, refuse_first: bool| async move {
        let sent = Arc::new(AtomicU32::new(0));
        let counter = sent.clone();
        let inner = service_fn(move |_: Request<&'static str>| {
            let first = counter.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                match first && refuse_first {
                    true => Err(BoxError::from_rejected(Rejected::shed())),
                    false => Ok(Response::builder().status(503).body(()).unwrap()),
                }
            }
        });
        let retry = RetryLayer::builder("r10").http().build().unwrap().layer(inner);
        assert_eq!(retry.oneshot(request).await.unwrap().status(), 503);
        sent.load(Ordering::Relaxed)
    };
    let post = || Request::post("/orders").body("one").unwrap();
    assert_eq!(send(post(), false).await, 1);
    assert_eq!(send(post(), true).await, 2, "refused unsent, then sent once");
    let marked = Request::post("/orders").header("idempotency-key", "17").body("one").unwrap();
    assert_eq!(send(marked, false).await, 3);
    assert_eq!(send(Request::get("/orders").body("").unwrap(), false).await, 3);
}
