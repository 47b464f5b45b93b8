package input_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

var known = []input.Setting{
	{Key: "eventhub.hubs", Kind: input.List},
	{Key: "eventhub.connection_string", Kind: input.SecretText},
	{Key: "eventhub.start", Kind: input.StartTime, Default: "latest"},
	{Key: "keep_nulls", Kind: input.Switch, Default: "off"},
	{Key: "memory_limit", Kind: input.Bytes, Default: "256M"},
	{Key: "blob.poll_interval", Kind: input.Duration, Default: "60s"},
	{Key: "blob.workers", Kind: input.Number, Default: "4"},
	{Key: "blob.auth", Kind: input.Choice, Default: "entra", Choices: []string{"entra", "managed_identity"}},
	{Key: "separator", Kind: input.Text, Default: "."},
}

func settings(values map[string]string) *input.Settings {
	return input.NewSettings(func(k string) string { return values[k] }, known)
}

// show reads one key and prints what was read, or the error.
func show(key, value string) string {
	s := settings(map[string]string{key: value})
	var v any
	switch key {
	case "eventhub.hubs":
		v = s.List(key)
	case "eventhub.start":
		v = s.Start(key)
	case "keep_nulls":
		v = s.Switch(key)
	case "memory_limit":
		v = s.Bytes(key)
	case "blob.poll_interval":
		v = s.Duration(key)
	case "blob.workers":
		v = s.Number(key, 1, 64)
	case "blob.auth":
		v = s.Choice(key)
	case "separator":
		v = s.Text(key)
	}
	if err := s.Err(); err != nil {
		return err.Error()
	}
	return fmt.Sprint(v)
}

func TestSettingsAreRead(t *testing.T) {
	f := func(key, value, want string) {
		t.Helper()
		if got := show(key, value); got != want {
			t.Errorf("%s %q: %s, want %s", key, value, got, want)
		}
	}
	f("eventhub.hubs", "a, b  c,", "[a b c]")
	f("eventhub.hubs", "", "[]")
	f("keep_nulls", "", "false")
	f("keep_nulls", "On", "true")
	f("keep_nulls", "off", "false")
	f("memory_limit", "", fmt.Sprint(256<<20))
	f("memory_limit", "64m", fmt.Sprint(64<<20))
	f("memory_limit", "1GB", fmt.Sprint(1<<30))
	f("memory_limit", "1000", "1000")
	f("blob.poll_interval", "", "1m0s")
	f("blob.poll_interval", "90", "1m30s")
	f("blob.poll_interval", "5m", "5m0s")
	f("blob.workers", "64", "64")
	f("blob.auth", "Managed_Identity", "managed_identity")
	f("separator", "", ".")
	f("eventhub.start", "", "{true 0001-01-01 00:00:00 +0000 UTC}")
	f("eventhub.start", "EARLIEST", "{false 0001-01-01 00:00:00 +0000 UTC}")
	f("eventhub.start", "2026-01-31T09:00:00Z", "{false 2026-01-31 09:00:00 +0000 UTC}")
}

func TestEachMistakeNamesKeyValueAndRemedy(t *testing.T) {
	f := func(key, value, remedy string) {
		t.Helper()
		got := show(key, value)
		for _, want := range []string{key, value, remedy} {
			if !strings.Contains(got, want) {
				t.Errorf("%s %q: %q does not say %q", key, value, got, want)
			}
		}
	}
	f("keep_nulls", "maybe", "neither on nor off")
	f("memory_limit", "lots", "such as 256M")
	f("memory_limit", "-5", "such as 256M")
	f("memory_limit", "99999999999G", "such as 256M")
	f("blob.poll_interval", "soon", "such as 60s")
	f("blob.poll_interval", "-5s", "such as 60s")
	f("blob.workers", "0", "from 1 to 64")
	f("blob.workers", "many", "from 1 to 64")
	f("blob.auth", "manged_identity", "did you mean managed_identity?")
	f("blob.auth", "kerberos", "none of entra, managed_identity")
	f("eventhub.start", "lastest", "did you mean latest?")
	f("eventhub.start", "yesterday", "2026-01-31T09:00:00Z")
}

func TestAllMistakesAtOnce(t *testing.T) {
	s := settings(map[string]string{"keep_nulls": "maybe", "memory_limit": "lots"})
	s.Switch("keep_nulls")
	if got := s.Bytes("memory_limit"); got != 256<<20 {
		t.Errorf("a mistake gives %d, want the default", got)
	}
	if err := s.Err(); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("%v", err)
	}
}

func TestMisspeltKeys(t *testing.T) {
	f := func(typed, meant string) {
		t.Helper()
		s := settings(map[string]string{typed: "on"})
		s.FindMisspelt()
		want := fmt.Sprintf("%s: there is no such setting; did you mean %s?", typed, meant)
		if err := s.Err(); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", typed, err, want)
		}
	}
	f("eventhub.hub", "eventhub.hubs")
	f("eventhub.hubss", "eventhub.hubs")
	f("evnethub.hubs", "eventhub.hubs")
	f("eventhub.hubz", "eventhub.hubs")
	f("eventhub_hubs", "eventhub.hubs")
	f("keepnulls", "keep_nulls")
	f("keep-nulls", "keep_nulls")
	f("memory_limits", "memory_limit")
	f("connection_string", "eventhub.connection_string")
	f("eventhub.connection_string_fil", "eventhub.connection_string_file")

	s := settings(map[string]string{"keep_nulls": "on", "eventhub.hubs": "a", "eventhub.connection_string_file": "f", "tag": "x", "threaded": "off"})
	s.FindMisspelt()
	if err := s.Err(); err != nil {
		t.Errorf("nothing is misspelt: %v", err)
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	const text = "Endpoint=sb://x/;SharedAccessKey=c2VjcmV0"
	secret := input.NewSecret(text)
	type holder struct{ S input.Secret }
	js, err := json.Marshal(holder{secret})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", secret, "in", holder{secret}, "pointer", &secret)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", secret, "in", holder{secret}, "pointer", &secret)
	s := settings(map[string]string{"eventhub.connection_string": text, "eventhub.connection_string_file": "also"})
	s.Secret("eventhub.connection_string")
	s.Reject("eventhub.connection_string", "is wrong")
	for _, shown := range []string{
		fmt.Sprintf("%v %+v %#v %s %q %x %d", secret, secret, secret, secret, secret, secret, secret),
		fmt.Sprintf("%v %+v %#v %x", holder{secret}, holder{secret}, &holder{secret}, holder{secret}),
		string(js), log.String(), s.Err().Error(), fmt.Sprint(s.Effective()),
	} {
		if strings.Contains(shown, "c2VjcmV0") || strings.Contains(shown, fmt.Sprintf("%x", "c2VjcmV0")) {
			t.Errorf("printed: %s", shown)
		}
	}
	if secret.Reveal() != text || !secret.IsSet() || input.NewSecret("").IsSet() {
		t.Error("the secret is gone")
	}
}

func TestSecretFromFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cs")
	if err := os.WriteFile(path, []byte("hidden\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := settings(map[string]string{"eventhub.connection_string_file": path})
	if got := s.Secret("eventhub.connection_string"); got.Reveal() != "hidden" || s.Err() != nil || !s.IsSet("eventhub.connection_string") {
		t.Errorf("%v", s.Err())
	}
	f := func(values map[string]string, want string) {
		t.Helper()
		s := settings(values)
		s.Secret("eventhub.connection_string")
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "empty"), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f(map[string]string{"eventhub.connection_string_file": filepath.Join(dir, "none")}, "no such file")
	f(map[string]string{"eventhub.connection_string_file": filepath.Join(dir, "empty")}, "is empty")
	f(map[string]string{"eventhub.connection_string": "a", "eventhub.connection_string_file": path}, "set twice")
	f(map[string]string{"eventhub.connection_string": "${EVENTHUB}"}, "environment variable")
}

func TestFindMisspeltIsQuick(t *testing.T) {
	asked := 0
	s := input.NewSettings(func(string) string { asked++; return "" }, known)
	started := time.Now()
	s.FindMisspelt()
	if asked > 200_000 || time.Since(started) > 5*time.Second {
		t.Errorf("%d look-ups in %v", asked, time.Since(started))
	}
}

func TestSecretFile(t *testing.T) {
	dir := t.TempDir()
	f := func(content string, mode os.FileMode, want, wrong, warning string) {
		t.Helper()
		file := filepath.Join(dir, "secret")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		s := input.NewSettings(func(k string) string { return map[string]string{"key_file": file}[k] }, []input.Setting{{Key: "key", Kind: input.SecretText}})
		got, err := s.Secret("key").Reveal(), fmt.Sprint(s.Err())
		warnings := strings.Join(s.Warnings(), "\n")
		if got != want || !strings.Contains(err, wrong) || (wrong == "<nil>") != (err == "<nil>") || !strings.Contains(warnings, warning) || (warning == "") != (warnings == "") {
			t.Errorf("%q: %q, %s, %s", content, got, err, warnings)
		}
		if want != "" && strings.Contains(err+warnings, want) {
			t.Errorf("%q: the secret is shown", content)
		}
	}
	f("topsecret", 0o600, "topsecret", "<nil>", "")
	f("\ufefftopsecret\r\n", 0o600, "topsecret", "<nil>", "")
	f(" \t topsecret\n\n", 0o644, "topsecret", "<nil>", "")
	f("topsecret", 0o666, "topsecret", "<nil>", "can be written by every user")
	f("\xff\xfet\x00o\x00p\x00", 0o600, "", "UTF-16", "")
	f("\xfe\xff\x00t\x00o\x00p", 0o600, "", "UTF-16", "")
	f("topsecret\x00", 0o600, "", "UTF-16, or no text", "")
	f("\ufeff\r\n", 0o600, "", "the file is empty", "")
	f("e", 0o600, "", "key: is shorter than 6 characters", "")
}

// A secret in the place of a path is named and not shown. A secret of few letters is refused: to
// mask it would mask the log.
func TestSecretMistakes(t *testing.T) {
	f := func(key, value, wrong string) {
		t.Helper()
		s := input.NewSettings(func(k string) string { return map[string]string{key: value}[k] }, []input.Setting{{Key: "key", Kind: input.SecretText}})
		got := s.Secret("key")
		if err := fmt.Sprint(s.Err()); got.IsSet() || !strings.Contains(err, wrong) || strings.Contains(err, value) {
			t.Errorf("%s = %s: %q, %s", key, value, got.Reveal(), err)
		}
	}
	f("key_file", "Endpoint=sb://ns.example/;SharedAccessKeyName=l;SharedAccessKey=TOPSECRET=", "key_file: holds the secret itself; set key to it")
	f("key_file", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=TOPSECRET==", "holds the secret itself")
	f("key_file", "?sv=2022-11-02&sig=TOPSECRET", "holds the secret itself")
	f("key_file", "TOP8Q~SECRET.of_an-application", "key_file: no file has this name, which is not shown")
	f("key_file", "TOP/SECRET/keyOfAnAccount==", "no file has this name, which is not shown")
	f("key_file", "/TOPSECRET/keyOfAnAccount==", "no file has this name, which is not shown")
	f("key_file", strings.Repeat("TOPSECRET", 100), "no file has this name, which is not shown")
	f("key", "@#$%!", "is shorter than 6 characters")
}

func TestSettingsWithoutEffect(t *testing.T) {
	s := settings(map[string]string{"blob.workers": "8", "blob.poll_interval": "soon", "keep_nulls": "maybe", "separator": "_"})
	s.Text("separator")
	s.Switch("keep_nulls")
	s.Switch("keep_nulls")
	s.FindUnused(func(key string) string { return "no " + key[:4] })
	s.FindUnused(func(string) string { return "" })
	if got := fmt.Sprint(s.Warnings()); got != "[blob.workers has no effect: no blob]" {
		t.Errorf("warnings: %s", got)
	}
	err := fmt.Sprint(s.Err())
	if strings.Count(err, "\n") != 1 || strings.Count(err, "keep_nulls") != 1 || !strings.Contains(err, "blob.poll_interval \"soon\"") {
		t.Errorf("mistakes: %s", err)
	}
}

// Quotes that Fluent Bit or a container runtime has kept are one mistake, whatever the kind. A
// password may have some.
func TestQuotedValues(t *testing.T) {
	for _, c := range []struct{ key, value string }{
		{"eventhub.hubs", `"a"`}, {"eventhub.hubs", `"a", "b"`}, {"eventhub.hubs", `'a,b'`}, {"eventhub.start", `"latest"`}, {"keep_nulls", `'on'`}, {"memory_limit", `"64M"`},
		{"blob.poll_interval", `"60s"`}, {"blob.workers", `'8'`}, {"blob.auth", `"entra"`}, {"separator", `"_"`},
	} {
		if got := show(c.key, c.value); got != fmt.Sprintf("%s %q: is in quotes; remove them", c.key, c.value) {
			t.Errorf("%s %s: %s", c.key, c.value, got)
		}
	}
	if got := show("separator", `"`); got != `"` {
		t.Errorf("separator: %s", got)
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("TOPSECRET"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := settings(map[string]string{"eventhub.connection_string_file": `"` + file + `"`})
	if got := s.Secret("eventhub.connection_string"); got.Reveal() != "TOPSECRET" || fmt.Sprint(s.Err()) != "eventhub.connection_string_file: is in quotes; remove them" {
		t.Errorf("a path in quotes: %v", s.Err())
	}
	for value, want := range map[string]string{`"Endpoint=x"`: "in quotes", `'?sv=1&sig=TOPSECRET'`: "in quotes", `"TOPSECRET"`: "<nil>"} {
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, set := range []map[string]string{{"eventhub.connection_string": value}, {"eventhub.connection_string_file": file}} {
			s := settings(set)
			got := s.Secret("eventhub.connection_string")
			if err := fmt.Sprint(s.Err()); !strings.Contains(err, want) || strings.Contains(err, "TOPSECRET") || want == "<nil>" && got.Reveal() != value {
				t.Errorf("%s: %s", value, err)
			}
		}
	}
}

// A start that is still to come is most likely a slip in the year.
func TestStartInTheFuture(t *testing.T) {
	s := settings(map[string]string{"eventhub.start": time.Now().AddDate(1, 0, 0).Format(time.RFC3339)})
	s.Start("eventhub.start")
	if got := fmt.Sprint(s.Warnings()); s.Err() != nil || !strings.Contains(got, "is in the future") {
		t.Errorf("%s, %v", got, s.Err())
	}
}
