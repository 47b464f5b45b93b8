package event

// A Device is the device that was found for a record. A format writes it under names of its own.
type Device struct {
	ID     []byte // in lower case; nil if the record has no device
	Match  string // how it was found: row, evidence, name, alert, user; several if none was; "" for no device
	Status string // hit, stale, unknown, pending, none

	Columns []Column // of DeviceInfo, the newest report first, and what else is known; also without an ID
	Alert   []Column // columns that the row lacks, from the AlertInfo of its alert
}

// A Column is a column and its value in msgpack, as any record has it.
type Column struct {
	Name  string
	ID    int // the same for the same name, from 0 on; below 300
	Value []byte
}
