// Package machines asks the machines API of Microsoft Defender for Endpoint for devices
// (learn.microsoft.com/defender-endpoint/api/machine).
//
//	                        +------------- Client -----------------------------+
//	transform misses a      |                                                  |
//	device      --Ask-----> |  answered lately? -> one flight a device -> 4    |        +---------------+
//	                        |                      (512 at most)       workers-+--+     |               |
//	                        |                                                  |  |     | GET /machines |
//	at the start and every  |  list, page by page ----------------------------+--+-->  |   ?$top&$skip |
//	device_info.api.refresh |                                                  |limiter| GET /machines |
//	                        |                                                  |       |   /{id}       |
//	Learn <-----------------|  a machine, as the columns of DeviceInfo  <------+-------|               |
//	(into transform's cache)+--------------------------------------------------+       +---------------+
//
// The API is a help and never a need: [Client.Ask] waits for nothing, and says which answers may
// come in time. This package keeps only the ids of the devices that were asked for lately. The
// answers go to Learn as JSON with DeviceInfo's own column names, so the cache need not know their
// origin.
//
// # Files
//
//	client.go    Client: the list and its timer, look-ups and their workers
//	api.go       one call: token, request, answer, error
//	machine.go   from a machine in an answer to the columns of DeviceInfo
//	limiter.go   the quota: 100 calls a minute, 1,500 an hour
//	breaker.go   stops look-ups while the API does not answer
//	settings.go  the keys of device_info.auth and device_info.api.*
//	check.go     check_only: one device is asked for
//
// # What is not obvious
//
//   - The quota is 100 calls in a minute and 1,500 in an hour. That allows 25 look-ups a minute for
//     long, or 10,000 devices a call with the list. So the list is the main way, and look-ups are
//     for devices that came after it. Each leaves the other a part.
//   - 404 means an unknown device, or a tenant without any, or, now and then, a device that
//     exists. It counts for 10 minutes.
//   - A page is read as it comes in and never held whole. The devices before a cut are kept; the
//     page is asked for again.
//   - A link to the next page must stay on the API's host, and redirects are not followed: the
//     token goes with them.
//   - 429 stops all calls until Retry-After is over. Anything else that is not an answer counts
//     towards the breaker, and so does an answer that takes longer than device_info.wait. It opens
//     after 3 in a row and stops look-ups. The list keeps trying, with waits of 30 seconds to 10
//     minutes. A slow answer is learned all the same, for the next alert.
//   - A failure is logged once, by the first call that fails, and once more when all works again.
//   - Every instance of the plugin has its own count of calls. If several use the same application,
//     they share its quota without knowing. That costs a 429 now and then and nothing more.
package machines
