package blob

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// hourOf returns the beginning of the hour in the path of a blob, or the zero time. It is the hour
// in which its events were received, in UTC: .../y=2026/m=01/d=13/h=09/m=00/PT1H.json.
func hourOf(name string) time.Time {
	m := hourPath.FindStringSubmatch(name)
	if m == nil {
		return time.Time{}
	}
	var n [4]int
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1])
	}
	return time.Date(n[0], time.Month(n[1]), n[2], n[3], 0, 0, 0, time.UTC)
}

var hourPath = regexp.MustCompile(`(?:^|/)y=(\d{4})/m=(\d{2})/d=(\d{2})/h=(\d{2})/`)

// dayPrefix is where a day's blobs are below a root. A day has 24 names, which fit a page of any
// listing.
func dayPrefix(root string, day time.Time) string { return root + day.Format("y=2006/m=01/d=02/") }

// days returns the days of the look-back window, the newest first.
func days(now time.Time, lookback time.Duration) []time.Time {
	var days []time.Time
	for d, first := day(now), day(now.Add(-lookback)); !d.Before(first); d = d.AddDate(0, 0, -1) {
		days = append(days, d)
	}
	return days
}

func day(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// isTenant tells whether a folder is that of a tenant, whose blobs are filed by day.
func isTenant(folder string) bool {
	parts := strings.Split(strings.TrimSuffix(folder, "/"), "/")
	return strings.HasPrefix(strings.ToLower(parts[len(parts)-1]), "tenantid=")
}

// isYear reports whether a folder is a year's. The folder around it is then a root.
func isYear(folder string) bool {
	parts := strings.Split(strings.TrimSuffix(folder, "/"), "/")
	y, ok := strings.CutPrefix(parts[len(parts)-1], "y=")
	_, err := strconv.Atoi(y)
	return ok && err == nil && len(y) == 4
}

// isEvents tells by its name whether a blob may hold events. Folders of accounts with a
// hierarchical namespace are listed as empty blobs without an ending.
func isEvents(name string) bool {
	name = strings.ToLower(name)
	for _, ending := range []string{".json", ".ndjson", ".jsonl", ".gz"} {
		if strings.HasSuffix(name, ending) {
			return true
		}
	}
	return false
}

// rootOf returns the folder that holds the y= folder of a name with an hour in it.
func rootOf(name string) string { return name[:hourPath.FindStringSubmatchIndex(name)[2]-len("y=")] }
