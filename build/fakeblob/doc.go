// Package fakeblob is a Blob Storage account inside the process, for the demo, tests and
// benchmarks. It speaks the REST protocol on loopback, without TLS, as far as reading and filling
// containers needs it. It lists containers, and blobs flat, by delimiter and in pages. It has
// ranged reads, properties, append blobs, block blobs, the archive tier, leases, conditional writes
// and metadata.
//
// It has behaviour of the real service that an emulator lacks. Pages may be empty and carry a
// marker, and containers may have 100,000 blobs. It throttles with Retry-After, answers 403 on
// reading where listing works, and refuses an expired SAS. It cuts connections in mid-body, and its
// clock may differ from this machine's. A test asks for these with [Server.SetFault] and
// [Server.SetClock], and counts requests with [Server.Count].
//
// Answers have the shape of the service's, also where that is inconsistent: ETags are quoted in
// headers and bare in listings, and times have whole seconds. Signatures are not checked, but a
// request must have one. A SAS past its expiry is refused, and so is a shared key request whose
// date is more than 15 minutes off.
package fakeblob
