// Package blob reads Defender events from Azure Blob Storage. Defender exports each table into a
// container of its own, insights-logs-advancedhunting-<table>, one append blob an hour:
//
//	tenantId=<guid>/y=2026/m=01/d=13/h=09/m=00/PT1H.json
//
// The blob grows through its hour and some minutes longer. After the export was enabled, blobs of
// past hours grow for hours, too. So this is tail -F over HTTP:
//
//	a goroutine a container                workers                                Fetch
//	  poll:  this day, an older one            ranged reads, If-Match
//	  sweep: all names, page by page  queue    cut into values        pieces      messages
//	         |                  fresh | backlog | late    |          (budget)
//	  listed blob, its position  ----------->  tail  -----+-------------------------->
//	                                            ^                                    |
//	                               state file   +-----  Commit  <--------------------+
//
// # Files
//
//	source.go     Source: opens, finds containers, hands messages out, commits; what ends it
//	settings.go   the keys of blob.*, and the Config that they make
//	check.go      check_only: account, sign-in, containers and rights, each tried once
//	account.go    the service: sign-in, lists, ranged reads, its clock
//	guard.go      limits on every answer: its size, its time, the range that was asked for
//	errors.go     what an error means: its kind, whether to wait, what to check
//	container.go  one container: what to list at a poll, and which blobs to follow
//	layout.go     names: the day and hour of a blob, the folders of a container
//	sweep.go      the daily list of a whole container, page by page
//	warm.go       tells when the recent blobs of some containers have been read
//	queue.go      which blob is read next: fresh, backlog or late
//	read.go       one turn of a worker: is it still the same blob, read, cut, hand on
//	tail.go       one blob: its offsets, its place in the text, its term
//	cut.go        from bytes to messages: lines, values, lists
//	values.go     where a JSON value ends
//	gzip.go       blobs that are packed
//	utf16.go      blobs in UTF-16
//	buffers.go    memory: the budget of bytes, and pieces that are used again
//	book.go       positions in the state file, and their stored form
//	shard.go      a share of the blobs; what is known of a container's blobs in one
//	sharing.go    blob.shared: looks at the other workers, claims a fair share, says what is wrong
//	fair.go       which shards to claim, and which to ask for
//	claim.go      a shard's lease, from its claim to its end, and the writes of its positions
//	pack.go       the blob of a shard
//	stats.go      figures
//
// # Text
//
// The text of a blob is a sequence of JSON values. A value ends where its brackets end, not where
// its line does. One blob may hold lines, values of many lines, arrays and envelopes, in any order:
//
//	{"time":...}                      a value a line: one message each
//	{                                 a value of many lines: one message
//	  "time":...
//	}
//	[{"time":...},{"time":...}]       a list: an array of records,
//	{"records":[{...},{...}]}         or an envelope of them
//	anything else                     a line: one message, which cannot be read
//
// A list that is whole in a piece is one message. A longer one is cut into its records, one message
// each, in the memory of a piece. So is a list whose end has not come, and every list of a block
// blob. Data beside the records of an envelope are passed on as unreadable, with that reason.
//
// Blank lines, commas, record separators and byte-order marks may stand between values. UTF-16 with
// its mark becomes UTF-8. gzip is recognised by its first bytes, and may be around all of this. Its
// positions count unpacked bytes, and it is not tailed.
//
// Damage costs one value. It ends before the next line that begins as a value does: with neither a
// blank nor a closing bracket nor a comma. In a list it ends before the next record that begins
// with the same key.
//
// A value of more than Config.LineLimit bytes is cut there. Its beginning is passed on as
// unreadable, its rest is skipped, and the log has the place and the number of bytes. The rest of a
// record of a list ends also before a line that begins with an object: it may have been the last.
//
// # Positions
//
// A lane is "container/name". A term is a generation of the blob in this process. Each blob has
// four offsets and a size:
//
//	0         safe        given        pos         end         size
//	|----------|------------|-----------|-----------|-----------|
//	 committed   on its way   no value:   looked at:  listed,
//	             to the host  blanks,     a value     not read
//	                          brackets    without
//	                                      its end
//
//	safe <= given <= pos <= end <= size
//
// A position is stored with its place, so that reading can continue there after a crash. A place is
// the beginning of a line, or lies after a value, inside a list, or behind the list of an envelope.
// See place.
//
// A list is not read again from its beginning: a mark may lie inside of it.
//
// # Which blob it is
//
//   - An append blob is another one when its creation time differs, when it shrank, or when its
//     first bytes hash differently. They are hashed on suspicion only. At the beginning of a line
//     the byte before must be a newline. Another one has a new term and is read from its beginning.
//   - A block blob is written as a whole, even when it only grows, as flow logs do: "]}" at its end
//     moves. If its first bytes (head) and those before the end of its last value (foot) are
//     unchanged, reading continues from there. Otherwise all of it is read again: repeats have the
//     same event_id.
//   - The time is the service's (Date of its answers), since it names folders and stamps blobs by
//     it. What counts as read without a position goes by the earlier one of both clocks.
//   - An unfinished line or value waits for its rest. An hour after the end of the blob's hour and
//     its last change, it is handed on unfinished. A block blob waits for values only.
//
// # What is remembered
//
// Positions live in the state file until 30 days after a blob's last change. Older blobs without a
// position were read. That is sure: a sweep ends only when all that it found is safe, and it stores
// the blob.prefix for which that holds. A blob in the archive tier, or one that fails, stays
// unread. It has an entry that does not age, and is read when it can be.
//
// Blobs of the look-back window are followed in memory, up to a number. Those beyond it that have
// nothing to read are compared with their stored position at every list. While too many have
// something to read, no more are listed. A blob that fails is tried again later. While blobs fail,
// only one of them is tried at a time, so that others do not wait for it.
//
// # What polls cost
//
// List calls are billed like writes. A poll makes at most three for a container and tenant, at any
// age of the container. One is for the current day. One is for an older day of the look-back
// window, in turn. Every other time it is the day before; in the first hour after midnight it
// always is. One is for folders, now and then, or for a page of the daily sweep.
//
// The first poll lists all days of the window. With start earliest or a time it also sweeps the
// whole container at 5,000 names a call. Containers of another layout are swept at every poll,
// three pages of 5,000 names. A sweep may find folders of days further down (resourceId=/..., Log
// Analytics): they are listed by day from then on. Reads are billed a tenth of that: one a blob
// that grew.
//
// # Several workers
//
// With blob.shared, workers share the blobs; they do not talk to each other. Positions and
// ownership are in one container, in a small blob a shard (blob.shards, 32). A worker reads the
// blobs of the shards whose lease it has:
//
//	claim    acquire 60 s, read the positions, write the owner: from here on its blobs are read
//	renew    every 15 s
//	write    with the lease and If-Match, only if something moved, with each commit (5 s). Its number
//	         is in the metadata: 412 may be the answer to one that was applied
//	look     every 10 s; every second in the first minute while others have shards, and while a
//	         shard that was asked for has not come: one list call, who has which. Claim those that
//	         nobody has, up to the fair share. Ask for two at a time of whoever has too many, by
//	         breaking the lease: it goes on for its time, and its owner reads no more, waits until
//	         the host has taken what is on its way, writes, and releases. Whoever looks first claims
//	         it, so a worker counts only on what it has asked for itself
//	ended    by somebody else: its marks count no more, and it is claimed anew only when none of its
//	         events is on its way
//	close    write, release: another worker claims it at its next look. One that died is taken over
//	         when its lease has run out, within 75 s
//
// A lease counts as lost 10 s before the service may give it to another (the margin), from the
// moment before the renewal was sent. Time is that of [input.Lease]: it runs on while a process is
// stopped or the machine suspended. The lease is checked before each read, right before each append
// to the host, and before each write. Events of a lost lease are not handed over, and their marks
// are dropped. The shard is claimed again only when no event of it is on its way. So an event that
// is in the outbox when its lease ends cannot count as handed on, or as a repeat.
//
// A shard's blob has the owner, what it reads, the claim, the write and the number of shards as
// metadata. It tells when the first worker of the container began, too. Workers with other blobs
// (another account, containers or prefix) would own shards that nobody reads: they claim nothing
// beside such an owner, and of those that claimed at the same time, those with fewer shards give
// theirs up. In a new container, shard-000 is claimed before any other: its owner names the number
// of shards. The text is the names in order with their positions in a short form, compressed:
// 120,000 positions take 3.5 MB together. They are kept for seven days, and at least twice the
// look-back. Of more than 64 MB, the positions of the blobs that changed longest ago are not
// written: the next owner reads these blobs again. When a blob is gone, its last owner writes the
// positions again at once, so that a new worker does not begin without them. When it is damaged, or
// its last owner is gone too, the next one writes those that it had. One that had none reads the
// look-back window again: events are repeated rather than lost. Where the start is latest, it reads
// what changed since the first worker began: a missing blob is that of a new shard in the first
// minute only.
//
// A shard is a hash of container, tenant and day. So the worker that reads a day also lists it,
// once a poll, and need not pass the list on. A hash of whole names would spread the 24 blobs of a
// day. Then each worker would have to list all days: ten workers, ten times the price. If one
// worker listed for all, it would have to write its lists, and the others to read them. That costs
// a write and some reads a poll, and a poll's delay. Either way spreads the load as well, since
// only the blob of the current hour of a table grows. Folders are listed by each worker, at every
// tenth poll, and so are all names, once a day. Blobs that are not filed by day fall to one shard a
// container: its owner finds them at every poll.
//
// Each worker has its own device memory and its own ids of repeats. So all workers read the
// containers that Warm names (DeviceInfo), from WarmUp before the start on. From blobs of another
// worker they only learn devices, and hand no event over ([input.OnlyLearn]). Each worker lists
// these containers. Evidence of one alert of one day is one worker's. db keeps devices over a
// restart; positions of blobs are not in it.
package blob
