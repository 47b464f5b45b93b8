// Package blob reads Defender events from Azure Blob Storage. Defender exports each table into a container of its own,
// insights-logs-advancedhunting-<table>, one append blob an hour,
//
//	tenantId=<guid>/y=2026/m=01/d=13/h=09/m=00/PT1H.json
//
// one record a line. The blob grows through its hour, some minutes longer, and after the export was enabled hours later too. So
// this is tail -F over HTTP:
//
//	a goroutine a container                    workers                                    Fetch
//	  poll:  this day, an older one in turn                ranged reads, If-Match
//	  sweep: all names, page by page          queue        cut at newlines      pieces      messages
//	         |                            fresh | backlog        |            (budget)
//	  listed blob, its stored position  ------->  blobState  ----+------------------------->
//	                                                  ^                                     |
//	                                     state file   +-----  Commit  <---------------------+
//
// # What is not obvious
//
//   - A lane is "container/name", a position is the byte after a newline, a term is a generation of the blob in this process.
//   - Reading goes on one byte before the position: that byte must be a newline. It costs nothing, and shows a blob that was
//     replaced, a line that was cut, and a first start in the middle of a line. See readLines.
//   - A blob is another one when its creation time differs, when it shrank, or when its first bytes hash differently, which
//     is looked at on suspicion only. Then it has a new term and is read from its beginning.
//   - The time is the service's (Date of its answers), since it names folders and stamps blobs by it.
//   - An unfinished last line waits for its rest. An hour after the blob's hour has ended and the blob has last changed, it is handed on
//     as it is: whole JSON is a record, anything else is unreadable, and both are passed on.
//   - A blob that begins with {"records":[ and a line break, or with a bracket alone, is one object and one message.
//   - gzip blobs are told by their first bytes. Their positions count unpacked bytes; they are not tailed.
//   - Blobs of the look-back window are followed in memory, up to a number: those beyond it that have nothing to read are met anew at
//     every list, and told from changed ones by what is stored; while too many have something to read no more are listed.
//   - Positions live in the state file, 30 days after a blob's last change. What is older and unknown was read, which is sure
//     because a sweep ends only when all that it found is safe ("floor").
//
// # What polls cost
//
// List calls are billed like writes. A poll makes at most three for a container and tenant, whatever the container's age: one for
// the current day, one for an older day of the look-back window in turn (the day before, every other time; every time in the first
// hour after midnight), and one for folders, now and then, or for a page of the daily sweep. The first poll lists all days of the window
// and, with start earliest or a time, sweeps the whole container at 5,000 names a call. Containers of another layout are swept at every
// poll, three pages of 5,000 names. Reads are billed a tenth of that: one a blob that grew.
package blob
