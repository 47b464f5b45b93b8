// Package fakeblob is a Blob Storage account inside the process, for the demo, tests and
// benchmarks: the part of the REST protocol that reading and filling containers needs (list
// containers, list blobs flat or by delimiter and in pages, ranged reads, properties, append blobs,
// block blobs, the archive tier, leases, conditional writes, metadata), on loopback and without
// TLS.
//
// It does what a real service does and an emulator cannot be made to do: empty pages that carry a
// marker, throttling with Retry-After, 403 on reading where listing works, an expired SAS, a
// connection that is cut in mid-body, a clock that differs from this machine's, containers of
// 100,000 blobs. A test asks for these with [Server.SetFault] and [Server.SetClock], and counts
// requests with [Server.Count].
//
// The shape of answers is that of the service, also where it is inconsistent: ETags are quoted in
// headers and bare in listings, and times have whole seconds. Signatures are not checked, but there
// must be one: a request without any is refused, so is a SAS past its expiry, and a shared key
// request whose date is more than 15 minutes off.
package fakeblob
