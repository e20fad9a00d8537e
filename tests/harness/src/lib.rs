//! A real kube-apiserver and the programs under test, for the tests.
