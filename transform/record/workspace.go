package record

// A Log Analytics workspace, such as that of Microsoft Sentinel, exports records of its tables
// without an envelope. Type names the table, each record has TimeGenerated, and TenantId is the id
// of the workspace. Its tables of Advanced Hunting have the columns that the stream has.
//
// Sources: learn.microsoft.com, "Log Analytics workspace data export in Azure Monitor", and the
// table references of Azure Monitor, as of July 2026.

// AlertTable is the table of alerts of Defender for Cloud, and of all alerts in a workspace.
const AlertTable = "SecurityAlert"

// bare makes a record that a workspace exports of a table of Advanced Hunting its own columns.
func (r *Record) bare() {
	doc := &r.Doc
	n := doc.Find(0, "Type")
	if n == 0 || doc.Nodes[n].Kind != KindString || doc.Find(0, "TimeGenerated") == 0 {
		return
	}
	category, ok := huntingCategories[string(doc.Inner(n))]
	if !ok {
		return
	}
	r.Lifted, r.Bare, r.category = true, true, category
	r.Columns, r.Props, r.Properties, r.Envelope = r.Doc, 0, 0, Envelope{}
}

// AlertClass is the class of a column of AlertTable. Defender for Cloud exports lists and objects
// where a workspace has them as text, and true where that has 1. Only those columns that come in
// two forms have a class; names that tables of Advanced Hunting have, too, have none here.
func AlertClass(column []byte) Class {
	switch string(column) {
	case "Entities", "ExtendedLinks", "ResourceIdentifiers":
		return ClassObjects
	case "ExtendedProperties":
		return ClassObject
	case "RemediationSteps":
		return ClassScalars
	case "IsIncident":
		return ClassBoolean
	case "ConfidenceScore":
		return ClassReal
	}
	return ClassAny
}
