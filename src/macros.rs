//! What every service of the crate has, written once.

/// `get_ref`, `get_mut` and `into_inner` of a wrapper with a field `inner`.
///
/// `wrapper_methods!(Retry<S, C, R>, "a layer, as an expression for the examples")`: the first parameter is the inner service.
macro_rules! wrapper_methods {
    ($service:ident < $inner:ident $(, $rest:ident)* >, $example:literal) => {
        impl<$inner $(, $rest)*> $service<$inner $(, $rest)*> {
            /// The wrapped service.
            ///
            /// # Examples
            ///
            /// ```
            /// use tower::Layer;
            ///
            #[doc = concat!("let service = ", $example, ".layer(\"a service\");")]
            /// assert_eq!(*service.get_ref(), "a service");
            /// # Ok::<(), mainstay::InvalidConfig>(())
            /// ```
            pub const fn get_ref(&self) -> &$inner {
                &self.inner
            }

            /// The wrapped service, mutably.
            ///
            /// # Examples
            ///
            /// ```
            /// use tower::Layer;
            ///
            #[doc = concat!("let mut service = ", $example, ".layer(\"a service\");")]
            /// *service.get_mut() = "another";
            /// # Ok::<(), mainstay::InvalidConfig>(())
            /// ```
            pub const fn get_mut(&mut self) -> &mut $inner {
                &mut self.inner
            }

            /// Unwraps the service.
            ///
            /// # Examples
            ///
            /// ```
            /// use tower::Layer;
            ///
            #[doc = concat!("let service = ", $example, ".layer(\"a service\");")]
            /// assert_eq!(service.into_inner(), "a service");
            /// # Ok::<(), mainstay::InvalidConfig>(())
            /// ```
            pub fn into_inner(self) -> $inner {
                self.inner
            }
        }
    };
}
pub(crate) use wrapper_methods;

/// Inherent `ready` and `oneshot`, with the bound `Rejectable` where the compiler explains it.
///
/// Through `tower::ServiceExt` a missing `Rejectable` shows as a bare "method not found"; an inherent method carries the
/// bound, and with it the message that names `LiftLayer`.
///
/// Both return a future that has a name, see `oneshot.rs`.
///
/// `ready_methods!(Retry<S, C, R>, "a layer, as an expression for the examples")`: the first parameter is the inner service.
#[allow(unused_macros, reason = "used by the families, each behind its feature")]
macro_rules! ready_methods {
    ($service:ident < $inner:ident $(, $rest:ident)* >, $example:literal $(, $begin:ident)?) => {
        impl<$inner $(, $rest)*> $service<$inner $(, $rest)*> {
            /// Waits until the service can take a call.
            ///
            /// # Errors
            ///
            /// The error of `poll_ready`; the service is then to be dropped.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future loses nothing.
            ///
            /// # Examples
            ///
            /// ```
            /// use mainstay::BoxError;
            /// use tower::{Layer, Service, service_fn};
            ///
            /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
            #[doc = concat!("let layer = ", $example, ";")]
            /// let mut service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
            /// assert_eq!(service.ready().await?.call(1).await?, 2);
            /// # Ok(())
            /// # }
            /// ```
            pub fn ready<Req>(&mut self) -> $crate::Ready<'_, Self, Req>
            where
                $inner: ::tower_service::Service<Req>,
                <$inner as ::tower_service::Service<Req>>::Error: $crate::Rejectable,
                Self: ::tower_service::Service<Req, Error = <$inner as ::tower_service::Service<Req>>::Error>,
            {
                $(self.$begin();)?
                $crate::Ready::new(self)
            }

            /// Waits until the service is ready, then makes one call.
            ///
            /// # Errors
            ///
            /// The error of `poll_ready`, or of the call.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future drops the call; see the response future.
            ///
            /// # Examples
            ///
            /// ```
            /// use mainstay::BoxError;
            /// use tower::{Layer, Service, service_fn};
            ///
            /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
            #[doc = concat!("let layer = ", $example, ";")]
            /// let service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
            /// assert_eq!(service.oneshot(1).await?, 2);
            /// # Ok(())
            /// # }
            /// ```
            // A type of its own for the future: named by a projection in the signature, a missing `Rejectable` would show as a bare
            // "trait bounds not satisfied".
            pub fn oneshot<Req, Fut>(self, request: Req) -> $crate::Oneshot<Self, Req, Fut>
            where
                $inner: ::tower_service::Service<Req>,
                <$inner as ::tower_service::Service<Req>>::Error: $crate::Rejectable,
                Self: ::tower_service::Service<
                        Req,
                        Response = <$inner as ::tower_service::Service<Req>>::Response,
                        Error = <$inner as ::tower_service::Service<Req>>::Error,
                        Future = Fut,
                    >,
            {
                $crate::Oneshot::new(self, request)
            }
        }
    };
}
#[allow(unused_imports, reason = "used by the families, each behind its feature")]
pub(crate) use ready_methods;
