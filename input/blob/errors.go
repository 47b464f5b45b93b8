package blob

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

// trouble is the kind of an error. Errors are counted by it, and it is logged once while it lasts.
type trouble string

const (
	throttled trouble = "throttled" // 429, 503
	denied    trouble = "denied"    // 401, 403
	noSignIn  trouble = "sign_in"   // no token
	missing   trouble = "missing"   // 404
	changed   trouble = "changed"   // 412: it grew, or was replaced, since it was listed
	outside   trouble = "range"     // 416: nothing there
	redirect  trouble = "redirect"  // 3xx, which is not followed
	notRange  trouble = "not_range" // an answer to a ranged read that is not the range
	endless   trouble = "endless"   // a listing that is too large or never ends
	refused   trouble = "refused"   // any other answer of the service
	network   trouble = "network"   // no answer, or not a whole one
	broken    trouble = "state"     // the state file
)

func kindOf(err error) trouble {
	var answer *azcore.ResponseError
	var token *azidentity.AuthenticationFailedError
	var elsewhere *web.RedirectError
	var long *web.LengthError
	switch {
	case errors.Is(err, errState):
		return broken
	case errors.Is(err, errOther):
		return changed
	case errors.Is(err, errNotRange):
		return notRange
	case errors.Is(err, errCircle), errors.Is(err, errManyEmpty):
		return endless
	case errors.As(err, &token):
		return noSignIn // also when it was the answer of the sign-in host that was refused
	case errors.As(err, &elsewhere):
		return redirect
	case errors.As(err, &long):
		return endless
	case !errors.As(err, &answer):
		return network
	}
	switch answer.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return throttled
	case http.StatusUnauthorized, http.StatusForbidden:
		return denied
	case http.StatusNotFound:
		return missing
	case http.StatusPreconditionFailed:
		return changed
	case http.StatusRequestedRangeNotSatisfiable:
		return outside
	}
	return refused
}

// isArchived tells whether a blob is in the archive tier, by an answer to reading it.
func isArchived(err error) bool {
	var answer *azcore.ResponseError
	return errors.As(err, &answer) && answer.ErrorCode == "BlobArchived"
}

// retryAfter is how long the service asks to be left alone.
func retryAfter(err error) time.Duration {
	var answer *azcore.ResponseError
	if !errors.As(err, &answer) || answer.RawResponse == nil {
		return 0
	}
	h := answer.RawResponse.Header
	for _, f := range []struct {
		name string
		unit time.Duration
	}{{"retry-after-ms", time.Millisecond}, {"x-ms-retry-after-ms", time.Millisecond}, {"Retry-After", time.Second}} {
		if n, err := strconv.Atoi(h.Get(f.name)); err == nil && n > 0 {
			return min(time.Duration(n)*f.unit, 10*time.Minute)
		}
	}
	if at, err := http.ParseTime(h.Get("Retry-After")); err == nil {
		return min(max(time.Until(at), 0), 10*time.Minute)
	}
	return 0
}

// explain makes one line of an error that says what to check. It never shows a URL's query, where a
// signature may be. listed tells that listing the container works.
func (a *account) explain(err error, listed bool) error {
	var answer *azcore.ResponseError
	var u *url.Error
	switch {
	case kindOf(err) == noSignIn:
		return signin.Explain(err)
	case kindOf(err) == notRange, kindOf(err) == endless:
		return fmt.Errorf("%s: %w", a.host, cause(err))
	case kindOf(err) == redirect:
		return fmt.Errorf("%s: %w; redirects are not followed: check blob.account_url or BlobEndpoint, and proxies", a.host, cause(err))
	case errors.As(err, &answer):
		line := strings.TrimSpace(fmt.Sprintf("%d %s", answer.StatusCode, answer.ErrorCode))
		if hint := a.hint(answer, listed); hint != "" {
			line += ": " + hint
		}
		return errors.New(line)
	case errors.As(err, &u):
		if errors.Is(u.Err, context.DeadlineExceeded) {
			return fmt.Errorf("no answer from %s in time; check network and proxy", a.host)
		}
		return fmt.Errorf("%s: %w; check the account's name, network and proxy", a.host, u.Err)
	}
	return err
}

// cause is the error below those that the SDK and net/http put around it, which may quote the URL.
func cause(err error) error {
	var elsewhere *web.RedirectError
	var long *web.LengthError
	switch {
	case errors.As(err, &elsewhere):
		return elsewhere
	case errors.As(err, &long):
		return long
	}
	for _, known := range []error{errNotRange, errCircle, errManyEmpty} {
		if errors.Is(err, known) {
			return known
		}
	}
	return err
}

func (a *account) hint(answer *azcore.ResponseError, listed bool) string {
	if answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusServiceUnavailable {
		return "the storage account is throttling; reading continues as it allows"
	}
	hint := a.signInHint(answer)
	switch {
	case kindOf(answer) != denied || hint != "":
		return hint
	case a.sas:
		return "the shared access signature does not allow this; it needs read and list (sp=rl) on the container, and the account's firewall must let this machine in"
	case a.entra && listed:
		return "listing works and reading does not: grant the identity the role Storage Blob Data Reader on the account or container (Reader and Contributor do not give access to content)"
	case a.entra:
		return "grant the identity the role Storage Blob Data Reader on the account or container, and check the account's firewall"
	}
	return "check the account's firewall: it must let this machine in"
}

// signInHint says what is wrong with a key or a signature, or "" when it is the right of somebody
// who is known.
func (a *account) signInHint(answer *azcore.ResponseError) string {
	if kindOf(answer) != denied {
		return ""
	}
	now := time.Now()
	if answer.RawResponse != nil {
		if at, err := http.ParseTime(answer.RawResponse.Header.Get("Date")); err == nil {
			now = at
		}
	}
	skew := ""
	if d := time.Since(now).Round(time.Minute); d.Abs() > 5*time.Minute {
		skew = fmt.Sprintf("this machine's clock differs from the service's by %v: set it right", d)
	}
	switch {
	case !a.sasExpiry.IsZero() && now.After(a.sasExpiry):
		return "the shared access signature expired at " + a.sasExpiry.UTC().Format(time.RFC3339) + "; make a new one"
	case answer.ErrorCode == "KeyBasedAuthenticationNotPermitted":
		return "the account does not permit its key; set blob.auth to one of " + strings.Join(signin.Methods, ", ")
	case answer.ErrorCode == "AuthenticationFailed" && skew != "":
		return skew
	case answer.ErrorCode == "AuthenticationFailed" && a.sas:
		return "the shared access signature is not valid (wrong, expired, or revoked); make a new one"
	case answer.ErrorCode == "AuthenticationFailed" && !a.entra:
		return "the account key is wrong; it may have been rotated"
	}
	return ""
}
