import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.apache.lucene.analysis.standard.StandardAnalyzer;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.store.ByteBuffersDirectory;
import org.elasticsearch.TransportVersion;
import org.elasticsearch.cluster.metadata.IndexMetadata;
import org.elasticsearch.common.bytes.BytesArray;
import org.elasticsearch.common.compress.CompressedXContent;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.index.IndexSettings;
import org.elasticsearch.index.IndexVersion;
import org.elasticsearch.index.analysis.AnalyzerScope;
import org.elasticsearch.index.analysis.IndexAnalyzers;
import org.elasticsearch.index.analysis.NamedAnalyzer;
import org.elasticsearch.index.mapper.MapperMetrics;
import org.elasticsearch.index.mapper.MapperService;
import org.elasticsearch.index.mapper.ParsedDocument;
import org.elasticsearch.index.mapper.ProvidedIdFieldMapper;
import org.elasticsearch.index.mapper.SourceToParse;
import org.elasticsearch.index.similarity.SimilarityService;
import org.elasticsearch.indices.IndicesModule;
import org.elasticsearch.script.ScriptCompiler;
import org.elasticsearch.xcontent.XContentParserConfiguration;
import org.elasticsearch.xcontent.XContentType;

/**
 * The mapping code of an Elasticsearch release, without the server: Mapping SETTINGS.json MAPPINGS.json reads documents, one a
 * line, and does with each what a shard does: parse it, add the fields that it brings to the mapping, write it to Lucene.
 * It says which were refused and why, and how many fields there are in the end.
 */
public class Mapping {
  public static void main(String[] args) throws Exception {
    LogConfigurator.configureESLogging();
    Settings settings = Settings.builder()
        .loadFromSource(Files.readString(Path.of(args[0])), XContentType.JSON)
        .put("index.version.created", IndexVersion.current().id())
        .put("index.number_of_replicas", 0)
        .put("index.uuid", "test")
        .build();
    IndexSettings index = new IndexSettings(IndexMetadata.builder("test").settings(settings).build(), Settings.EMPTY);
    NamedAnalyzer standard = new NamedAnalyzer("default", AnalyzerScope.INDEX, new StandardAnalyzer());
    MapperService mapper = new MapperService(
        () -> TransportVersion.current(), index, IndexAnalyzers.of(Map.of("default", standard)), XContentParserConfiguration.EMPTY,
        new SimilarityService(index, null, Map.of()), new IndicesModule(List.of()).getMapperRegistry(), () -> null,
        ProvidedIdFieldMapper.NO_FIELD_DATA, ScriptCompiler.NONE, query -> null, MapperMetrics.NOOP);
    mapper.merge("_doc", new CompressedXContent(Files.readString(Path.of(args[1]))), MapperService.MergeReason.INDEX_TEMPLATE);

    IndexWriter writer = new IndexWriter(new ByteBuffersDirectory(), new IndexWriterConfig(standard));
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
    int accepted = 0;
    for (String line; (line = in.readLine()) != null; ) {
      try {
        ParsedDocument doc = mapper.documentMapper().parse(new SourceToParse("id", new BytesArray(line), XContentType.JSON));
        if (doc.dynamicMappingsUpdate() != null) {
          mapper.merge("_doc", doc.dynamicMappingsUpdate().toCompressedXContent(), MapperService.MergeReason.MAPPING_AUTO_UPDATE);
        }
        writer.addDocuments(doc.docs());
        accepted++;
      } catch (Exception e) {
        String why = e.getMessage() + (e.getCause() == null ? "" : ": " + e.getCause().getMessage());
        System.out.println("refused " + why.replace('\n', ' ') + " <- " + line);
      }
    }
    System.out.println("accepted " + accepted);
    System.out.println("fields " + mapper.mappingLookup().getTotalFieldsCount());
    System.exit(0);
  }
}
