//! What stands before each call of rvm.v1: nothing for those who were let in at the door, the cluster's roles for its users.

use kube::Client;
use tonic::{Request, Status};

use super::{Denied, User, Wanted, review};

/// Who is asked whether a call may be made.
#[derive(Clone)]
pub(crate) enum Gate {
    /// Nobody: whoever was let in at the door may do everything.
    Open,
    /// This cluster, of the user whom the door has noted in the request.
    Roles(Client),
}

/// Who makes a call.
pub(crate) struct Caller(Option<(Client, User)>);

// === impl Gate ===

impl Gate {
    /// Who makes this call. Where the cluster is to be asked, nobody who is unknown gets further.
    pub(crate) fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let Self::Roles(client) = self else {
            return Ok(Caller(None));
        };
        let user = request.extensions().get::<User>();
        let user = user.ok_or_else(|| Status::unauthenticated("nobody knows who asks"))?;
        Ok(Caller(Some((client.clone(), user.clone()))))
    }
}

// === impl Caller ===

impl Caller {
    /// Whether they may do that.
    pub(crate) async fn may(&self, wanted: &Wanted) -> Result<(), Status> {
        let Some((client, user)) = &self.0 else {
            return Ok(());
        };
        review(client, user, wanted).await.map_err(|denied| match denied {
            Denied::For(reason) => Status::permission_denied(reason),
            Denied::Unknown(error) => {
                tracing::warn!(%error, "the cluster does not say who may do what");
                Status::unavailable("the cluster does not say who may do what")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn client() -> Client {
        let nowhere = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("no cluster"))
        });
        Client::new(nowhere, "default")
    }

    #[tokio::test]
    async fn who_is_not_known_gets_nowhere_and_a_silent_cluster_lets_nobody_in() {
        let gate = Gate::Roles(client());
        let nobody = gate.caller(&Request::new(())).map(drop);
        assert_eq!(nobody.expect_err("nobody").code(), Code::Unauthenticated);
        let mut request = Request::new(());
        request.extensions_mut().insert(User::default());
        let caller = gate.caller(&request).expect("somebody");
        let may = caller.may(&Wanted::of_group("get", "", "version")).await;
        assert_eq!(may.expect_err("no cluster").code(), Code::Unavailable);
        let owner = Gate::Open.caller(&Request::new(())).expect("anybody");
        assert!(owner.may(&Wanted::of_group("get", "", "version")).await.is_ok());
    }
}
