package record

import "strconv"

// ParseInteger reads an integer in its one canonical form. ok is false for anything else (-0 and
// leading zeros among it) and for what int64 cannot hold.
func ParseInteger(b []byte) (_ int64, ok bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 19 || b[0] == '0' && (len(b) > 1 || negative) {
		return 0, false
	}
	n := uint64(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	if negative {
		return -int64(n), n <= 1<<63
	}
	return int64(n), n < 1<<63
}

// ParseFloat reads a JSON number. ok is false when float64 would be another number than the text:
// 1e400, 1e-400, or more digits than it keeps. Callers ask for a whole number without fraction and
// exponent only if int64 cannot hold it. Then ok is false, too: rounded, two record ids would
// become one.
func ParseFloat(b []byte) (_ float64, ok bool) {
	digits, exp, whole := decimal(make([]byte, 0, 24), b)
	if whole || len(digits) > 17 {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return 0, false
	}
	if len(digits) <= 15 && -290 < exp && exp < 290 {
		return v, true // float64 keeps 15 digits wherever it is not near its limits
	}
	again, exp2, _ := decimal(make([]byte, 0, 24), strconv.AppendFloat(make([]byte, 0, 32), v, 'e', -1, 64))
	return v, exp == exp2 && string(digits) == string(again)
}

// decimal appends the significant digits of a number to dst, at most 18 of them, and returns the
// exponent of the point before the first. whole is true when the text has neither point nor
// exponent.
func decimal(dst, b []byte) (_ []byte, exp int, whole bool) {
	whole = true
	point, zeros := false, 0
	i := 0
	for ; i < len(b) && b[i] != 'e' && b[i] != 'E'; i++ {
		c := b[i]
		switch {
		case c == '-':
			continue
		case c == '.':
			point, whole = true, false
			continue
		case c == '0' && len(dst) == 0:
			if point {
				exp--
			}
			continue
		case c == '0':
			zeros++
		default:
			for ; zeros > 0 && len(dst) < 18; zeros-- {
				dst = append(dst, '0')
			}
			zeros = 0
			if len(dst) < 18 {
				dst = append(dst, c)
			}
		}
		if !point {
			exp++
		}
	}
	if i < len(b) {
		whole = false
		i++
		negative := false
		if b[i] == '+' || b[i] == '-' {
			negative = b[i] == '-'
			i++
		}
		e := 0
		for ; i < len(b) && e < 100_000; i++ {
			e = e*10 + int(b[i]-'0')
		}
		if negative {
			e = -e
		}
		exp += e
	}
	return dst, exp, whole
}

// ParseReal is ParseFloat for a column whose numbers are all floats: whole ones too.
func ParseReal(b []byte) (float64, bool) {
	if i, ok := ParseInteger(b); ok {
		return float64(i), int64(float64(i)) == i && i > -1<<53 && i < 1<<53
	}
	return ParseFloat(b)
}

// ParseBoolean reads the spellings of true and false that columns have.
func ParseBoolean(b []byte) (value, ok bool) {
	switch string(b) {
	case "true", "True", "TRUE", "1":
		return true, true
	case "false", "False", "FALSE", "0":
		return false, true
	}
	return false, false
}
