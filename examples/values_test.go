package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
)

// values are the variables that a configuration cannot do without, and those that have a default.
func values(config string) (needed, optional []string) {
	for _, m := range regexp.MustCompile(`\$\{([A-Z_]+)(:-[^}]*)?\}`).FindAllStringSubmatch(config, -1) {
		if m[2] == "" {
			needed = append(needed, m[1])
		} else {
			optional = append(optional, m[1])
		}
	}
	slices.Sort(needed)
	slices.Sort(optional)
	return slices.Compact(needed), slices.Compact(optional)
}

// A newcomer fills in two values, both of the SIEM; the third is the connection string that Azure
// prints. The head of the file names all variables, and so do the commands of the guide, which name
// no others.
func TestTwoValuesToFillIn(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"splunk":     {"SPLUNK_HOST", "SPLUNK_TOKEN"},
		"elastic":    {"ELASTIC_HOST", "ELASTIC_PASSWORD"},
		"opensearch": {"OPENSEARCH_HOST", "OPENSEARCH_PASSWORD"},
	} {
		head, config, _ := strings.Cut(example(t, name+"/fluent-bit.yaml"), "\nservice:\n")
		needed, optional := values(config)
		all := slices.Sorted(slices.Values(append([]string{"EVENTHUB_CONNECTION_STRING"}, want...)))
		if !slices.Equal(needed, all) {
			t.Errorf("%s cannot do without %v, want %v", name, needed, all)
		}
		if want := slices.Sorted(slices.Values([]string{"CHECK_ONLY", "HTTP_LISTEN", strings.ToUpper(name) + "_PORT"})); !slices.Equal(optional, want) {
			t.Errorf("%s has defaults for %v, want %v", name, optional, want)
		}
		for _, v := range slices.Concat(needed, optional) {
			if !regexp.MustCompile(`(?m)^#   .*\b` + v + `\b`).MatchString(head) {
				t.Errorf("the head of %s/fluent-bit.yaml does not say what %s is", name, v)
			}
		}

		packaged := example(t, "../build/package/files/environment")
		for _, v := range needed {
			if !strings.Contains(packaged, "\n#"+v+"=") {
				t.Errorf("the environment file of the packages lacks %s", v)
			}
		}
		if !strings.Contains(packaged, "\n#FLUENT_BIT_CONFIG=/etc/fluent-bit/defender/"+name+".yaml\n") {
			t.Errorf("the environment file of the packages lacks the configuration for %s", name)
		}

		guide := example(t, name+"/README.md")
		var set []string
		for _, m := range regexp.MustCompile(`(?m)^ *export ([A-Z_]+)=`).FindAllStringSubmatch(guide, -1) {
			set = append(set, m[1])
		}
		if !slices.Equal(set, want) {
			t.Errorf("the guide of %s fills in %v, want %v", name, set, want)
		}
		runs := 0
		for line := range strings.Lines(guide) {
			if !strings.Contains(line, "docker run ") {
				continue
			}
			runs++
			var passed []string
			for _, m := range regexp.MustCompile(` -e ([A-Z_]+)(=\S+)?`).FindAllStringSubmatch(line, -1) {
				switch {
				case m[2] == "":
					passed = append(passed, m[1])
				case !slices.Contains(optional, m[1]):
					t.Errorf("the guide of %s sets %s, which the configuration does not know", name, m[1])
				}
			}
			if slices.Sort(passed); !slices.Equal(passed, needed) {
				t.Errorf("a docker command of the guide of %s passes %v, want %v", name, passed, needed)
			}
			if !strings.Contains(line, " -c /etc/fluent-bit/defender/"+name+".yaml") {
				t.Errorf("a docker command of the guide of %s does not name the image's configuration: %s", name, line)
			}
		}
		if runs != 2 {
			t.Errorf("%d docker commands in the guide of %s, want one that checks and one that runs", runs, name)
		}
	}
}

// The other examples are the one for a SIEM but for a few lines of the section: what is tested of
// that holds for them.
func TestVariants(t *testing.T) {
	t.Parallel()
	const connection = "      eventhub.connection_string: ${EVENTHUB_CONNECTION_STRING}\n"
	for _, v := range []struct{ file, of, instead string }{
		{"kubernetes/fluent-bit.yaml", "splunk", ""},
		{"blobs/fluent-bit.yaml", "splunk", ""},
		{"kubernetes/workers.yaml", "splunk", ""},
		{"devices/hub-and-blobs.yaml", "elastic", connection},
		{"devices/machines-api.yaml", "elastic", connection},
	} {
		_, base, _ := strings.Cut(example(t, v.of+"/fluent-bit.yaml"), "\nservice:\n")
		_, variant, _ := strings.Cut(example(t, v.file), "\nservice:\n")
		if strings.Contains(variant, " blob.shared: ") { // positions are there
			base = strings.Replace(base, "      db: /var/lib/fluent-bit/defender.db\n", "", 1)
		}
		before, after, found := strings.Cut(base, connection)
		if !found {
			t.Fatalf("%s has no connection string", v.of)
		}
		own, ok := strings.CutPrefix(variant, before+v.instead)
		own, fits := strings.CutSuffix(own, after)
		if !ok || !fits {
			t.Errorf("%s differs from %s/fluent-bit.yaml in more than its sources", v.file, v.of)
			continue
		}
		for line := range strings.Lines(own) {
			if !regexp.MustCompile(`^      (eventhub|blob|azure|device_info|tables)[a-z_.]*: \S`).MatchString(line) {
				t.Errorf("%s has a line of its own that is not of a source: %q", v.file, line)
			}
		}
	}
}

// The first step of every guide: CHECK_ONLY=on tries the hub, says what works, sends nothing and
// ends with status 0. Without it the default holds, as TestEndToEnd shows.
func TestCheckOnly(t *testing.T) {
	t.Parallel()
	binary, library := fluentBit(t), plugin(t)
	hub := startHub(t, 40)
	for _, e := range targets {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := newSIEM(t, e.name)
			config := e.local(t, service(t, section(t, e.config(t), dir, library, hub), dir), s)
			p := start(t, binary, dir, config, append(slices.Clone(e.env), "CHECK_ONLY=on", "EVENTHUB_CONNECTION_STRING="+hub.ConnectionString())...)
			select {
			case err := <-p.done:
				p.done <- err
				if err != nil {
					t.Errorf("fluent-bit ended with %v, want status 0", err)
				}
			case <-time.After(40 * time.Second):
				t.Fatal("fluent-bit does not end")
			}
			for _, want := range []string{"check: hub " + hubName + ": ok", "check_only: all "} {
				if !strings.Contains(p.log.String(), want) {
					t.Errorf("it does not say %q:\n%s", want, p.log)
				}
			}
			if n, _ := s.count(); n > 0 {
				t.Errorf("the SIEM was asked %d times", n)
			}
		})
	}
}

// The commands of "From source" lead from a copied example to the records in the SIEM. They run
// unchanged, except for the three values, the addresses of the servers and the folders. Those of
// the packages are run by build/package.
func TestCommandsFromSource(t *testing.T) {
	t.Parallel()
	_, run, _ := cut(t, example(t, "README.md"), "\n### From source\n", "\n### ")
	blocks := regexp.MustCompile("(?s)```\n(.*?)```\n").FindAllStringSubmatch(run, -1)
	if len(blocks) != 2 {
		t.Fatalf("README.md has %d blocks of commands under From source, want one that installs and one that runs", len(blocks))
	}
	splunk := targets[0]
	for _, path := range regexp.MustCompile(` (/\S+)`).FindAllStringSubmatch(blocks[0][1], -1) {
		if !strings.Contains(splunk.config(t), path[1]) {
			t.Errorf("README.md makes %s, which the example does not use", path[1])
		}
	}
	if _, input, _ := cut(t, example(t, "../README.md"), "```yaml\n", "```\n\n"); !strings.Contains(splunk.config(t), strings.TrimPrefix(input, "```yaml\n")) {
		t.Error("the input that README.md shows is not that of splunk/fluent-bit.yaml")
	}

	binary, library := fluentBit(t), plugin(t)
	const n = 100
	hub := startHub(t, n)
	s := newSIEM(t, "splunk")
	dir := t.TempDir()
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"examples": here, "fluent-bit": binary} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	mine := map[string]string{"EVENTHUB_CONNECTION_STRING": hub.ConnectionString(), "SPLUNK_HOST": "127.0.0.1", "SPLUNK_TOKEN": splunkToken}
	env := []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
	command := func(line string) *exec.Cmd {
		cmd := exec.Command("bash", "-c", line)
		cmd.Dir, cmd.Env = dir, env
		return cmd
	}
	lines := strings.Split(strings.TrimSpace(blocks[1][1]), "\n")
	if len(lines) != 6 {
		t.Fatalf("the commands of README.md are no longer those that this test runs: %q", lines)
	}
	if out, err := command(lines[0]).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", lines[0], err, out)
	}
	file := filepath.Join(dir, "defender.yaml")
	config := splunk.local(t, service(t, section(t, example(t, file), dir, library, hub), dir), s)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range lines[1:4] {
		m := regexp.MustCompile(`^export ([A-Z_]+)=\S+$`).FindStringSubmatch(line)
		if m == nil || mine[m[1]] == "" {
			t.Fatalf("cannot fill in %q", line)
		}
		env = append(env, m[1]+"="+mine[m[1]])
		delete(mine, m[1])
	}
	if out, err := command(lines[4]).CombinedOutput(); err != nil || !strings.Contains(string(out), "check_only: all ") {
		t.Fatalf("%s: %v\n%s", lines[4], err, out)
	}
	p := launch(t, dir, command("exec "+lines[5]))
	p.until("every event is there", func() bool { _, taken := s.count(); return taken >= n })
	p.stop()
	if _, key, _ := strings.Cut(hub.ConnectionString(), "SharedAccessKey="); strings.Contains(p.log.String(), strings.SplitN(key, ";", 2)[0]) {
		t.Error("the connection string is in the log")
	}
}

// The variant of a hub for each table: a connection string of the namespace, and the pattern that
// the page names.
func TestHubForEachTable(t *testing.T) {
	t.Parallel()
	m := regexp.MustCompile("`eventhub.hubs: (\\S+)`").FindStringSubmatch(example(t, "README.md"))
	if m == nil {
		t.Fatal("README.md says nothing of a hub for each table")
	}
	hubs := map[string]int32{"insights-logs-advancedhunting-alertevidence": 1, "insights-logs-advancedhunting-deviceinfo": 2, "other": 1}
	hub, err := fakehub.Start(fakehub.Options{Hubs: hubs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)
	for name := range hubs {
		messages := [][]byte{alert("File"), alert("User")}
		if name == "other" {
			messages = [][]byte{[]byte(deviceRecord("DeviceInfo", `"DeviceId":"`+deviceID+`"`))}
		}
		if err := hub.Produce(t.Context(), name, messages...); err != nil {
			t.Fatal(err)
		}
	}
	records, log := runSection(t, "splunk/fluent-bit.yaml", "4", map[string]string{
		"eventhub.connection_string": hub.ConnectionString(), "db": filepath.Join(t.TempDir(), "defender.db"),
	}, "eventhub.hubs="+m[1], "eventhub.brokers="+hub.Brokers(), "eventhub.ca_file="+hub.CAFile())
	if len(records) != 4 {
		t.Errorf("%d records, want 4\n%s", len(records), log)
	}
	for _, r := range records {
		if r["table"] != "AlertEvidence" {
			t.Errorf("read from a hub that the pattern does not fit: %v", r)
		}
	}
}
