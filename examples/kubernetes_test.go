package examples_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// What depends on one another in the Deployment, its configuration and the image.
func TestKubernetesWorkers(t *testing.T) {
	t.Parallel()
	deployment, config := example(t, "kubernetes/deployment.yaml"), example(t, "kubernetes/workers.yaml")
	for _, want := range []string{
		"replicas: 3\n", "emptyDir:", "mountPath: /var/lib/fluent-bit\n", "--config=/fluent-bit/etc/conf/workers.yaml\n",
		`azure.workload.identity/use: "true"`, "azure.workload.identity/client-id: ", "terminationGracePeriodSeconds: 60 ",
	} {
		if !strings.Contains(deployment, want) {
			t.Errorf("deployment.yaml lacks %q", want)
		}
	}
	if strings.Contains(deployment, "persistentVolumeClaim") || strings.Contains(config, " db: ") {
		t.Error("the pods need a volume")
	}
	for _, want := range []string{" blob.shared: defender-workers ", "grace: 30 "} {
		if !strings.Contains(config, want) {
			t.Errorf("workers.yaml lacks %q", want)
		}
	}
	if user := regexp.MustCompile(`USER (\d+)`).FindStringSubmatch(example(t, "../build/Dockerfile")); user == nil || !strings.Contains(deployment, "runAsUser: "+user[1]+"\n") {
		t.Errorf("the user is not that of the image, %v", user)
	}
}

// What depends on one another in the values, the volume, the configuration and the image.
func TestKubernetesValues(t *testing.T) {
	t.Parallel()
	values := example(t, "kubernetes/values.yaml")
	config := example(t, "kubernetes/fluent-bit.yaml")
	number := func(text, pattern string) int {
		m := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("nothing like %s", pattern)
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if stop, grace := number(values, `terminationGracePeriodSeconds: (\d+)`), number(config, `grace: (\d+)`); stop < grace+20 {
		t.Errorf("Kubernetes kills after %d s, Fluent Bit needs %d and some", stop, grace)
	}
	if user := number(values, `runAsUser: (\d+)`); user != number(example(t, "../build/Dockerfile"), `USER (\d+)`) || user != number(values, `fsGroup: (\d+)`) {
		t.Errorf("user %d is not that of the image, or does not own the volume", user)
	}
	for _, want := range []string{
		"kind: Deployment\n", "replicaCount: 1\n", "type: Recreate", // two pods cannot have one state file
		`azure.workload.identity/use: "true"`, "azure.workload.identity/client-id: ",
		"mountPath: /var/lib/fluent-bit\n", "claimName: fluent-bit-defender\n",
	} {
		if !strings.Contains(values, want) {
			t.Errorf("values.yaml lacks %q", want)
		}
	}
	if !strings.Contains(example(t, "kubernetes/pvc.yaml"), "name: fluent-bit-defender\n") {
		t.Error("pvc.yaml does not make the claim that values.yaml mounts")
	}
}
