//! The manifest: kubevirt.io/v1 types, and the CRD generated from them.
