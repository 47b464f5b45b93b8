package format

import "bytes"

// splitTechnique splits an element of AttackTechniques, "PowerShell (T1059.001)", into the
// technique's name and id. The blank before the parenthesis may be missing. parent is the length of
// the id without its subtechnique: id[:parent] is T1059. ok is false for any other text.
func splitTechnique(text []byte) (name, id []byte, parent int, ok bool) {
	text = trim(text)
	at := bytes.LastIndex(text, []byte("(T"))
	if at < 0 || text[len(text)-1] != ')' {
		return nil, nil, 0, false
	}
	name, id = trim(text[:at]), text[at+1:len(text)-1]
	digits, dots := 0, 0
	for _, c := range id[1:] {
		switch {
		case isDigit(c):
			digits++
		case c == '.' && dots == 0 && digits > 0:
			dots++
			parent = digits + 1
			digits = 0
		default:
			return nil, nil, 0, false
		}
	}
	if digits == 0 || len(name) == 0 {
		return nil, nil, 0, false
	}
	if dots == 0 {
		parent = len(id)
	}
	return name, id, parent, true
}

// tactics are those of ATT&CK for enterprises, as of version 17: Defender's word, the name, the id.
var tactics = [...]struct{ word, name, id string }{
	{"reconnaissance", "Reconnaissance", "TA0043"},
	{"resourcedevelopment", "Resource Development", "TA0042"},
	{"initialaccess", "Initial Access", "TA0001"},
	{"execution", "Execution", "TA0002"},
	{"persistence", "Persistence", "TA0003"},
	{"privilegeescalation", "Privilege Escalation", "TA0004"},
	{"defenseevasion", "Defense Evasion", "TA0005"},
	{"credentialaccess", "Credential Access", "TA0006"},
	{"discovery", "Discovery", "TA0007"},
	{"lateralmovement", "Lateral Movement", "TA0008"},
	{"collection", "Collection", "TA0009"},
	{"commandandcontrol", "Command and Control", "TA0011"},
	{"exfiltration", "Exfiltration", "TA0010"},
	{"impact", "Impact", "TA0040"},
}

// tacticOf returns the name and the id of the ATT&CK tactic of a Category such as InitialAccess. It
// returns "" for a Category that is none, such as Malware or SuspiciousActivity.
func tacticOf(category []byte) (name, id string) {
	for i := range tactics {
		if t := &tactics[i]; equalFold(category, t.word) || sameFold(category, []byte(t.name)) {
			return t.name, t.id
		}
	}
	return "", ""
}
