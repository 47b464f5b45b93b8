package signin_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
)

// A token file that is a pipe nobody writes into keeps nobody waiting for longer than the context.
func TestTokenFileThatHangs(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "token")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", pipe)
	c := hostile(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) })
	cred, err := c.Credential(signin.WorkloadIdentity)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range 3 {
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			_, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://x/.default"}})
			cancel()
			if err == nil {
				t.Error("a token came")
			}
		}
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("hangs")
	}
	f, err := os.OpenFile(pipe, os.O_RDWR, 0) // a waiting reader continues, and finds nothing
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}
