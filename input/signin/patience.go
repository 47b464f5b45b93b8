package signin

import (
	"context"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// bounded is a credential that gives up when the context ends. azidentity does not, while it reads
// the file of AZURE_FEDERATED_TOKEN_FILE: a pipe there, or a file system that is gone, would delay
// a stop. A hanging read is left behind, and no other is begun until it ends.
type bounded struct {
	azcore.TokenCredential
	turn chan struct{} // holds one while somebody asks
}

func newBounded(c azcore.TokenCredential) *bounded { return &bounded{c, make(chan struct{}, 1)} }

// GetToken implements [azcore.TokenCredential].
func (b *bounded) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	type answer struct {
		token azcore.AccessToken
		err   error
	}
	given := make(chan answer, 1)
	select {
	case b.turn <- struct{}{}:
		go func() {
			var a answer
			defer func() { <-b.turn; given <- a }()
			defer input.Catch("get a token", &a.err)
			a.token, a.err = b.TokenCredential.GetToken(ctx, o)
		}()
	case <-ctx.Done():
	}
	select {
	case a := <-given:
		return a.token, a.err
	case <-ctx.Done():
		return azcore.AccessToken{}, fmt.Errorf("sign in: no token within the time for it; check the network, and the file of AZURE_FEDERATED_TOKEN_FILE: %w", ctx.Err())
	}
}
